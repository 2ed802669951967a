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
