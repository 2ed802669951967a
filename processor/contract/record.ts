/** Position in a partition: the offset of the next record to read. Ends are exclusive. */
export type Offset = number

/** Of a record, as a log counts them: every log takes so much, and refuses more. Kafka's own default for a message. */
export const MAX_RECORD_BYTES = 1024 * 1024

/** Small metadata of a record; ASCII names, UTF-8 values. */
export type Headers = Readonly<Record<string, string>>

/** Names what a record of the telemetry topic is, where it is no message; see telemetry.ts. */
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
