import type { Configuration } from '../processor/runtime/environment.ts'

const MiB = 1024 * 1024

/** Every bound of ingest. The comment says what happens at it; the metrics count how often. */
export const DEFAULT_LIMITS = {
  /** Open connections; one more is closed when it is accepted. */
  maxConnections: 20_000,
  /** The same of one address, and connections of one address begun in a second; of the latter ten seconds at once. */
  maxConnectionsPerAddress: 10_000,
  maxAttemptsPerAddress: 1_000,
  /** Connections of one name (`MQTT_AUTH`); one more gets CONNACK 3. */
  maxConnectionsPerName: 1_000,
  /** Messages of one name in a second, and devices that its connections speak for the first time; then it is read slower. */
  maxMessagesPerSecond: 20_000,
  maxNewDevicesPerSecond: 1_000,
  /** Keepalive of a client that asks for none, seconds; it is closed after half as long again without a packet. */
  keepaliveSeconds: 3_600,
  /** Remaining length of one MQTT packet, bytes; a longer one closes the connection. Below Kafka's 1,048,588. */
  maxPacketBytes: 1_000_000,
  /** QoS 1 and 2 messages of one connection without PUBACK or PUBREC; at it the connection is not read. */
  maxUnacked: 1_000,
  /** QoS 2 messages of one connection without PUBREL; over it the connection is closed: MQTT 3.1.1 cannot slow it. */
  maxUnreleased: 10_000,
  /** The same of all sessions; over it the session that is away longest is discarded, or the connection is closed. */
  maxUnreleasedTotal: 1_000_000,
  /** Bytes of unacknowledged QoS 1 and 2 messages of all connections; at it no connection that publishes is read. */
  maxHeldBytes: 64 * MiB,
  /** Bytes of incomplete packets and WebSocket messages of all connections; over it the one that began first is closed. */
  maxIncompleteBytes: 64 * MiB,
  /** Bytes of QoS 0 messages that the log has not taken; over it QoS 0 messages are dropped. */
  maxQos0Bytes: 8 * MiB,
  /** Bytes written to one connection that it has not read; over it the connection is closed. */
  maxOutgoingBytes: 8 * MiB,
  /** The same of all connections; over it the connection being written to is closed. */
  maxOutgoingTotalBytes: 128 * MiB,
  /** A connection that has not read what was written to it for this long is closed, ms. */
  drainTimeoutMs: 20_000,
  /** A connection without CONNECT for this long is closed, ms. */
  connectTimeoutMs: 10_000,
  /** TLS handshakes under way; a client beyond them waits for one to end, within `connectTimeoutMs`. */
  maxHandshakes: 1_000,
  /** How long a client whose login failed waits for its CONNACK, ms. */
  failedLoginMs: 1_000,
  /** Messages that a connection may not publish, within a minute; over it the connection is closed. */
  maxDenials: 100,
  /** A message that the log has not taken after this long is given up and its connection closed, ms. */
  appendDeadlineMs: 6_000,
  /** How long the first message of a batch waits for others, ms. */
  lingerMs: 2,
  /** Records and bytes of one append; a full batch does not linger. */
  maxBatchRecords: 2_000,
  maxBatchBytes: MiB,
  /** Concurrent appends of one partition; at it its batches wait. */
  maxAppends: 8,
  /** Devices that one connection, and all, speak for; over it a device's connectivity is not tracked. */
  maxDevicesPerConnection: 10_000,
  maxDevices: 1_000_000,
  /** Retained messages; over it a message is forwarded but not retained. */
  maxRetained: 10_000,
  maxRetainedBytes: 16 * MiB,
  /** UTF-16 code units of a client id; over it CONNACK says identifier rejected (2). */
  maxClientIdLength: 512,
  /** UTF-16 code units of a filter; over it SUBACK says failure (0x80). */
  maxFilterLength: 512,
  /** Filters in one SUBSCRIBE or UNSUBSCRIBE; over it the connection is closed. */
  maxFilters: 1_000,
  /** Levels and wildcards of a filter; over it SUBACK says failure. */
  maxFilterLevels: 16,
  maxFilterWildcards: 3,
  /**
   * Levels of all filters of one session, of one client (a name, else an address), and of all, connected ones and stored
   * ones each; over it SUBACK says failure.
   */
  maxSubscriptionLevels: 4_000,
  maxSubscriptionLevelsPerClient: 200_000,
  maxSubscriptionLevelsTotal: 800_000,
  /** Persistent sessions with subscriptions; over it the one that is away longest is discarded, or SUBACK says failure. */
  maxStoredSessions: 10_000,
  /** The same of one client; over it its own that is away longest is discarded. */
  maxStoredSessionsPerClient: 2_500,
  /** A persistent session whose client is away for this long is discarded, ms. */
  maxSessionAwayMs: 24 * 3_600_000,
  /** Messages queued for one persistent session, and for all; over it a message reaches connected clients only. */
  maxQueued: 1_000,
  maxQueuedTotal: 100_000,
  maxQueuedBytes: 64 * MiB,
  /** Bytes of the wills of all connections, and of one client's; over it CONNACK says server unavailable (3). */
  maxWillBytes: 64 * MiB,
  maxWillBytesPerClient: 16 * MiB,
  /** How long a stop waits for appends, for their acks, and for the shutdown records, ms each. */
  stopTimeoutMs: 5_000,
}

export type Limits = Readonly<typeof DEFAULT_LIMITS>

/** Those that variables set. */
export function limitsFrom(configuration: Configuration): Partial<Limits> {
  const { MQTT_CONNECTIONS_PER_ADDRESS, MQTT_ATTEMPTS_PER_ADDRESS, MQTT_CONNECTIONS_PER_NAME } = configuration
  const { MQTT_MESSAGES_PER_NAME, MQTT_NEW_DEVICES_PER_NAME, MQTT_KEEPALIVE_SECONDS } = configuration
  const set = {
    maxConnectionsPerAddress: MQTT_CONNECTIONS_PER_ADDRESS,
    maxAttemptsPerAddress: MQTT_ATTEMPTS_PER_ADDRESS,
    maxConnectionsPerName: MQTT_CONNECTIONS_PER_NAME,
    maxMessagesPerSecond: MQTT_MESSAGES_PER_NAME,
    maxNewDevicesPerSecond: MQTT_NEW_DEVICES_PER_NAME,
    keepaliveSeconds: MQTT_KEEPALIVE_SECONDS,
  }
  return Object.fromEntries(Object.entries(set).filter(([, value]) => value !== undefined))
}
