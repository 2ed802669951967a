import { MAX_ATTRIBUTES_BYTES } from '../processor/contract/attributes.ts'

/** Every bound of the HTTP side, and what happens there. */
export interface Limits {
  /**
   * From the first byte of a request to its last; then 408 and the connection is closed. A new connection on which none comes
   * in the same time is closed without an answer.
   */
  readonly requestTimeoutMs: number
  /** A connection with a request under way on which no byte moves is closed. */
  readonly idleSocketTimeoutMs: number
  /**
   * A connection without a request is closed. Longer than balancers keep theirs (AWS ALB and nginx: 60 s): one that is
   * closed here first takes with it the request that is sent on it just then, which may not be sent again if it is a POST.
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
  /** Time for one of those, ms; then the answer says that it was cut short. What is asked by then is waited for. */
  readonly searchMs: number
  /** Pages of dead letters under way; then 503 with Retry-After. Each may hold 16 MiB. */
  readonly maxLetterReads: number
  /** Time for one of those, ms; then the answer says that it was cut short, or is 503 when the log has given nothing. */
  readonly letterMs: number
  /** Letters, and bytes of them, after which one of those begins no further window; then the answer says that it was cut short. */
  readonly maxLettersExamined: number
  readonly maxLetterBytesExamined: number
  /** Statuses in one answer: a page ends early and has a `nextCursor`; the rest of a batch gets an error in place. */
  readonly maxAnswerBytes: number
  /** Bytes of answers that clients have not taken; then 503 with Retry-After for what would be one more. */
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

/** Of a body with attributes, with whatever space it has: then 413. */
export const MAX_ATTRIBUTES_BODY_BYTES = 4 * MAX_ATTRIBUTES_BYTES

/** Every bound of the streams of changes, and what happens there. */
export interface ChangesLimits {
  /** Streams open in the process; one more is refused with 503 and Retry-After. */
  readonly maxStreams: number
  /** Least time between two events of one device in a stream, ms: in between only the newest waits. */
  readonly perDeviceMs: number
  /** Least time between two writes to a stream, ms. */
  readonly writeMs: number
  /** After so long without a write a stream gets a comment with its position, ms. */
  readonly heartbeatMs: number
  /** What clients are told to wait before they connect again, ms: this and up to as much again. */
  readonly retryMs: number
  /** Changes that wait in a stream, bytes of statuses, and of what is kept of devices to leave; then it is cut as a slow reader. A page of a snapshot is beside that. */
  readonly maxWaitingBytes: number
  /** The same of all streams, pages of snapshots included; then the one that would add more is cut. */
  readonly maxWaitingBytesInAll: number
  /** One write to a connection, and what is a status too much for that; the next waits until the client has taken it. */
  readonly writeBytes: number
  /** A client that does not take what was written for so long, ms, is cut as a slow reader; looked at each `heartbeatMs`. */
  readonly maxBlockedMs: number
  /** What a cut stream's client has to take the reason, ms; then the connection is destroyed. */
  readonly lastWordMs: number
  /** Recent changes kept for streams that come back, per partition: records, and bytes of all partitions together. */
  readonly recentRecords: number
  readonly recentBytes: number
  /** Changes after the position of a stream that comes back; when there are more, it begins anew. */
  readonly maxBehind: number
  /** Streams that read older changes from the log at a time; others wait. */
  readonly maxCatchUps: number
  /** Snapshots being read at a time; others wait. */
  readonly maxSnapshots: number
  /** Devices in one read of a snapshot; of many bytes, fewer. */
  readonly snapshotPage: number
  /** How long a snapshot waits for a partition that nobody answers for, ms; then the stream ends. */
  readonly snapshotPatienceMs: number
  /**
   * Devices of which it is known which streams have them; of further ones `enter` and `leave` may come again, and of all, in
   * all streams at once, when a quarter of them were deleted.
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
