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
  readonly maxUntakenBytes: number
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
  maxUntakenBytes: 256 * 1024 * 1024,
}

/** Of a body with attributes, with whatever space it has: then 413. */
export const MAX_ATTRIBUTES_BODY_BYTES = 4 * MAX_ATTRIBUTES_BYTES
