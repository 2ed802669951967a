import type { ConnectivityReason, ConnectivityState } from './status.ts'

/** Position in a partition: the offset of the next record to read. Ends are exclusive. */
export type Offset = number

/** Largest record that every log takes, bytes as a log counts them: Kafka's own default. */
export const MAX_RECORD_BYTES = 1024 * 1024

/** Small metadata of a record; ASCII names, UTF-8 values. */
export type Headers = Readonly<Record<string, string>>

/** Tells the kind of a telemetry record that is no message, see below. */
export const HEADER_KIND = 'kind'

/** A record as a writer gives it. `key` decides the partition; a null `value` is a tombstone; `timestamp` is epoch ms. */
export interface NewRecord {
  readonly key: string | null
  readonly value: Uint8Array | null
  readonly timestamp: number
  readonly headers?: Headers | undefined
}

/** A record as a reader gets it. */
export interface LogRecord extends NewRecord {
  readonly offset: Offset
}

/** Where a record of the telemetry log is. Written `<partition>-<offset>`. */
export interface Position {
  readonly partition: number
  readonly offset: Offset
}

const POSITION = /^(0|[1-9]\d{0,4})-(0|[1-9]\d{0,15})$/

export function formatPosition({ partition, offset }: Position): string {
  return `${partition}-${offset}`
}

/** Undefined when `text` is not the text of a position. */
export function parsePosition(text: string): Position | undefined {
  const match = POSITION.exec(text)
  const offset = Number(match?.[2])
  return Number.isSafeInteger(offset) ? { partition: Number(match?.[1]), offset } : undefined
}

/**
 * Reads dead letters for the API, over any adapter of the log. A letter with a key is in the key's partition, unless
 * another program put it elsewhere.
 */
export interface LetterReader {
  /** Names the log. A position means nothing in another one. */
  readonly identity: string
  readonly partitions: number

  /** Offset of the oldest letter kept, and the end. When `signal` aborts, the log is asked no further. */
  bounds(partition: number, signal: AbortSignal): Promise<{ readonly start: Offset; readonly end: Offset }>

  /**
   * Yields committed letters from `from` on, in order, until `to`, which must not be past the end; the last batch may
   * go further. Copy what you keep, since values may be views of larger buffers. Rejects with OffsetOutOfRangeError
   * when retention has passed `from`, and with the reason of `signal` when that aborts.
   */
  read(partition: number, from: Offset, to: Offset, signal: AbortSignal): AsyncIterable<readonly LogRecord[]>
}

/** Changelog records in offset order, one per change of a device: key = device id, value = its status, null = deleted. */
export interface ChangeBatch {
  readonly records: readonly LogRecord[]
  /** Where to read on: compaction leaves gaps. */
  readonly next: Offset
}

/** Follows the changelog for the API, over any adapter of the log. */
export interface ChangeFeed {
  /** Names the changelog. One of another log, or one made anew, has another name. */
  readonly identity: string
  readonly partitions: number
  /** How long a deletion can still be read, ms. A reader that was away for longer may have missed some. */
  readonly deleteRetentionMs: number

  /**
   * Committed records from `from` on; waits at the end for more, and ends when `signal` aborts. The next batch is read
   * when it is asked for. Rejects with OffsetOutOfRangeError when `from` is not in the changelog.
   */
  follow(partition: number, from: Offset, signal: AbortSignal): AsyncIterable<ChangeBatch>

  /** Offset of the oldest record kept, and the end. */
  bounds(partition: number): Promise<{ readonly start: Offset; readonly end: Offset }>
}

/**
 * The telemetry topic carries records keyed by device id and stamped with the time of receipt.
 * A message keeps the bytes the device sent as its value, so that a foreign reader of the topic sees the device's own
 * JSON; the header `metric` names the metric of a single-value topic, and `will` the session whose last will it is.
 * Any other record has the header `kind`: `connectivity`, with the JSON of a `Connection` as its value; `attributes` and
 * `deletion`, which write.ts describes.
 */
export const HEADER_METRIC = 'metric'
export const HEADER_WILL = 'will'
export const KIND_CONNECTIVITY = 'connectivity'

export const MAX_PAYLOAD_BYTES = 256 * 1024
const DEVICE_ID = /^[A-Za-z0-9._:-]{1,128}$/

export function isDeviceId(text: string): boolean {
  return DEVICE_ID.test(text)
}

/** The start or end of a session, from which `connectivity` follows. */
export interface Connection {
  readonly state: ConnectivityState
  readonly reason: ConnectivityReason
  readonly session: number
}

export function connectivityRecord(deviceId: string, connection: Connection, timestamp: number): NewRecord {
  return {
    key: deviceId,
    value: Buffer.from(JSON.stringify(connection)),
    timestamp,
    headers: { [HEADER_KIND]: KIND_CONNECTIVITY },
  }
}
