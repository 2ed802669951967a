const MiB = 1024 * 1024

/** Every bound of ingest, and what happens at it. All are counted in the metrics. */
export interface Limits {
  /** Open connections; one more is closed when it is accepted. */
  readonly maxConnections: number
  /** Remaining length of one MQTT packet, bytes: announced longer, the connection is closed. Below Kafka's 1,048,588. */
  readonly maxPacketBytes: number
  /** QoS 1 and 2 messages of one connection without PUBACK or PUBREC; at it the connection is not read. */
  readonly maxUnacked: number
  /** QoS 2 messages of one connection without PUBREL; over it the connection is closed: MQTT 3.1.1 cannot slow it. */
  readonly maxUnreleased: number
  /** The same of all sessions; over it, of those that have some, the session away longest is discarded, or the connection is closed. */
  readonly maxUnreleasedTotal: number
  /** Bytes of unacknowledged QoS 1 and 2 messages of all connections; at it no connection that publishes is read. */
  readonly maxHeldBytes: number
  /**
   * Bytes of packets begun and not complete, and of WebSocket messages begun and not handed on, of all connections; over
   * it the one that began first is closed.
   */
  readonly maxIncompleteBytes: number
  /** Bytes of QoS 0 messages that the log has not taken; over it QoS 0 messages are dropped. */
  readonly maxQos0Bytes: number
  /** Bytes written to one connection that it has not read; over it the connection is closed. */
  readonly maxOutgoingBytes: number
  /** The same of all connections; over it the connection being written to is closed. */
  readonly maxOutgoingTotalBytes: number
  /** A connection that has not read what was written to it for so long is closed, ms. */
  readonly drainTimeoutMs: number
  /** A connection without CONNECT for so long is closed, ms. */
  readonly connectTimeoutMs: number
  /** A message the log has not taken after so long is given up and its connection closed, ms; well under keepalives. */
  readonly appendDeadlineMs: number
  /** How long the first message of a batch waits for others, ms. */
  readonly lingerMs: number
  /** Records and bytes of one append; a full batch does not linger. */
  readonly maxBatchRecords: number
  readonly maxBatchBytes: number
  /** Appends of one partition under way; at it its batches wait. */
  readonly maxAppends: number
  /** Devices one connection, and all, speak for; over it a device's connectivity is not tracked. */
  readonly maxDevicesPerConnection: number
  readonly maxDevices: number
  /** Retained messages; over it a message is forwarded but not retained. */
  readonly maxRetained: number
  readonly maxRetainedBytes: number
  /** UTF-16 code units of a client id, of which MQTT 3.1.1 wants 23; over it CONNACK says identifier rejected (2). */
  readonly maxClientIdLength: number
  /** UTF-16 code units of a filter; over it SUBACK says failure (0x80). */
  readonly maxFilterLength: number
  /** Filters in one SUBSCRIBE or UNSUBSCRIBE; over it the connection is closed. */
  readonly maxFilters: number
  /** Subscriptions of one session, and of all, connected ones and stored ones each; over it SUBACK says failure. */
  readonly maxSubscriptions: number
  readonly maxSubscriptionsTotal: number
  /** Persistent sessions with subscriptions; over it the one that is away longest is discarded, or SUBACK says failure. */
  readonly maxStoredSessions: number
  /** A persistent session whose client is away for so long is discarded, ms. */
  readonly maxSessionAwayMs: number
  /** Messages queued for one persistent session, and for all; over it a message is delivered only if it is connected. */
  readonly maxQueued: number
  readonly maxQueuedTotal: number
  readonly maxQueuedBytes: number
  /** Bytes of the wills of all connections; over it CONNACK says server unavailable (3). */
  readonly maxWillBytes: number
  /** At a stop: how long to wait for appends, for their acks, and for the shutdown records, ms each. */
  readonly stopTimeoutMs: number
}

export const DEFAULT_LIMITS: Limits = {
  maxConnections: 20_000,
  maxPacketBytes: 1_000_000,
  maxUnacked: 1_000,
  maxUnreleased: 10_000,
  maxUnreleasedTotal: 1_000_000,
  maxHeldBytes: 64 * MiB,
  maxIncompleteBytes: 64 * MiB,
  maxQos0Bytes: 8 * MiB,
  maxOutgoingBytes: 8 * MiB,
  maxOutgoingTotalBytes: 128 * MiB,
  drainTimeoutMs: 20_000,
  connectTimeoutMs: 10_000,
  appendDeadlineMs: 6_000,
  lingerMs: 2,
  maxBatchRecords: 2_000,
  maxBatchBytes: MiB,
  maxAppends: 8,
  maxDevicesPerConnection: 10_000,
  maxDevices: 1_000_000,
  maxRetained: 10_000,
  maxRetainedBytes: 16 * MiB,
  maxClientIdLength: 512,
  maxFilterLength: 512,
  maxFilters: 1_000,
  maxSubscriptions: 1_000,
  maxSubscriptionsTotal: 200_000,
  maxStoredSessions: 10_000,
  maxSessionAwayMs: 24 * 3_600_000,
  maxQueued: 1_000,
  maxQueuedTotal: 100_000,
  maxQueuedBytes: 64 * MiB,
  maxWillBytes: 64 * MiB,
  stopTimeoutMs: 5_000,
}
