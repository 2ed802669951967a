import { MAX_ATTRIBUTES_BYTES } from '../processor/contract/attributes.ts'

/** Bounds of the HTTP side, and what happens at each. */
export interface Limits {
  /**
   * From the first byte of a request to its last; then 408, and the connection is closed. A new connection without a
   * byte in this time is closed without an answer.
   */
  readonly requestTimeoutMs: number
  /** Closes a connection on which no byte of the request under way moves. */
  readonly idleSocketTimeoutMs: number
  /**
   * Closes a connection without a request. Balancers must close theirs first (AWS ALB and nginx: after 60 s), or a
   * request sent at that moment is lost, which must not be repeated if it is a POST.
   */
  readonly keepAliveTimeoutMs: number
  /** Request line and headers; then 431. */
  readonly maxHeaderBytes: number
  /** Then 413. Holds 1,000 device ids of 128 characters. */
  readonly maxBodyBytes: number
  /** Further connections are closed at once. */
  readonly maxConnections: number
  /** Reads of one device under way; then 503 with Retry-After. */
  readonly maxSingleReads: number
  /** Pages, batches and partition tables under way; then 503 with Retry-After. */
  readonly maxManyReads: number
  /** Writes under way, those that wait to be applied included; then 503 with Retry-After. */
  readonly maxWrites: number
  /** Lists, counts and summaries of the fleet under way; then 503 with Retry-After. */
  readonly maxSearches: number
  /** Time for one of those, ms; then the answer says that it was cut short. Slices already asked for are awaited. */
  readonly searchMs: number
  /** Pages of dead letters under way; then 503 with Retry-After. Each may hold 16 MiB. */
  readonly maxLetterReads: number
  /** Time for one of those, ms; then the answer says that it was cut short, or is 503 when nothing was read. */
  readonly letterMs: number
  /**
   * Letters, and their bytes, after which one of those begins no further window; then the answer says that it was cut
   * short.
   */
  readonly maxLettersExamined: number
  readonly maxLetterBytesExamined: number
  /** Bytes of statuses in one answer: a page ends early and has a `nextCursor`; the rest of a batch gets errors. */
  readonly maxAnswerBytes: number
  /** Bytes of answers that clients have not taken; then further answers get 503 with Retry-After. */
  readonly maxUnsentBytes: number
}

export const DEFAULT_LIMITS: Limits = {
  requestTimeoutMs: 10_000,
  idleSocketTimeoutMs: 60_000,
  keepAliveTimeoutMs: 75_000,
  maxHeaderBytes: 16 * 1024,
  maxBodyBytes: 256 * 1024,
  maxConnections: 10_000,
  maxSingleReads: 8_192,
  maxManyReads: 256,
  maxWrites: 1_024,
  maxSearches: 64,
  searchMs: 10_000,
  maxLetterReads: 2,
  letterMs: 5_000,
  maxLettersExamined: 100_000,
  maxLetterBytesExamined: 64 * 1024 * 1024,
  maxAnswerBytes: 16 * 1024 * 1024,
  maxUnsentBytes: 256 * 1024 * 1024,
}

/** Bytes of a body with attributes, white space included; then 413. */
export const MAX_ATTRIBUTES_BODY_BYTES = 4 * MAX_ATTRIBUTES_BYTES

/** Bounds of the streams of changes, and what happens at each. */
export interface ChangesLimits {
  /** Streams open in the process; one more is refused with 503 and Retry-After. */
  readonly maxStreams: number
  /** Least time between two events of one device in a stream, ms: in between only the newest waits. */
  readonly perDeviceMs: number
  /** Least time between two writes to a stream, ms. */
  readonly writeMs: number
  /** A stream that was quiet for this long gets a comment with its position, ms. */
  readonly heartbeatMs: number
  /** Clients are told to wait from this to twice this before they connect again, ms. */
  readonly retryMs: number
  /**
   * Bytes that wait in a stream: statuses, and `leave` events. Beyond them it is cut as a slow reader. A page of a
   * snapshot is counted apart.
   */
  readonly maxWaitingBytes: number
  /** The same over all streams, pages of snapshots included. The stream that exceeds it is cut. */
  readonly maxWaitingBytesInAll: number
  /**
   * Bytes of one write to a connection, beyond which a status may reach. The next write waits until the client has
   * taken it.
   */
  readonly writeBytes: number
  /** A client that takes nothing for this long, ms, is cut as a slow reader. It is checked each `heartbeatMs`. */
  readonly maxBlockedMs: number
  /** Time for a cut stream's client to take the reason, ms; then the connection is destroyed. */
  readonly lastWordMs: number
  /** Recent changes kept for streams that come back, per partition: records, and bytes of all partitions together. */
  readonly recentRecords: number
  readonly recentBytes: number
  /** Changes after a resumed position. With more the stream begins anew. */
  readonly maxBehind: number
  /** Streams that read older changes from the log at a time; others wait. */
  readonly maxCatchUps: number
  /** Snapshots being read at a time; others wait. */
  readonly maxSnapshots: number
  /** Devices in one read of a snapshot; fewer when they are large. */
  readonly snapshotPage: number
  /** Time for which a snapshot waits for a partition that nobody answers for, ms; then the stream ends. */
  readonly snapshotPatienceMs: number
  /**
   * Devices whose membership in streams is remembered. For further ones `enter` and `leave` may repeat, and for all
   * devices in all streams once a quarter of them was deleted.
   */
  readonly maxDevices: number
}

export const DEFAULT_CHANGES_LIMITS: ChangesLimits = {
  maxStreams: 1_000,
  perDeviceMs: 250,
  writeMs: 100,
  heartbeatMs: 15_000,
  retryMs: 1_000,
  maxWaitingBytes: 2 * 1024 * 1024,
  maxWaitingBytesInAll: 256 * 1024 * 1024,
  writeBytes: 64 * 1024,
  maxBlockedMs: 30_000,
  lastWordMs: 5_000,
  recentRecords: 8_192,
  recentBytes: 64 * 1024 * 1024,
  maxBehind: 500_000,
  maxCatchUps: 8,
  maxSnapshots: 8,
  snapshotPage: 200,
  snapshotPatienceMs: 10_000,
  maxDevices: 1_048_576,
}
