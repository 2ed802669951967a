import { type Headers, MAX_RECORD_BYTES, type NewRecord } from './record.ts'
import { MAX_TIME_MS } from './time.ts'

/** Why a record has no effect on a status: the dead letter's header, and the label of its counter. */
export const REJECTION_REASONS = [
  'bad-topic',
  'reserved-topic',
  'bad-device-id',
  'not-allowed',
  'bad-timestamp',
  'payload-too-large',
  'not-utf8',
  'not-json',
  'bad-connectivity',
  'bad-kind',
  'not-an-object',
  'too-deep',
  'too-many-metrics',
  'metric-name-too-long',
  'bad-metric-name',
  'bad-number',
  'bad-seq',
  'empty-array',
  'too-many-messages',
  'bad-attribute-name',
  'attributes-too-large',
  'bad-operation',
  'bad-condition',
  'bad-deletion',
  'unknown-device',
  'status-too-large',
] as const
export type RejectionReason = (typeof REJECTION_REASONS)[number]

/**
 * The original bytes and headers, with the reason and their origin (`topic`, or `partition` and `offset`). A record too large
 * for the log is cut, and the header `truncated` says how large it was; an impossible time stands in the header `timestamp`.
 */
export function deadLetter(
  reason: RejectionReason,
  original: NewRecord,
  origin: { readonly topic: string } | { readonly partition: number; readonly offset: number },
): NewRecord {
  const told: Record<string, string> = { reason }
  for (const [name, value] of Object.entries(origin)) told[name] = String(value)
  return letterOf(original, told)
}

/**
 * Largest dead letter, as `estimatedBytes` counts it; the rest is for the log's own framing and the header `truncated`. Ingest
 * makes no larger one, but other writers of the telemetry topic may, compressed, and a letter that the log refuses would
 * stop the partition for good.
 */
const MAX_LETTER_BYTES = MAX_RECORD_BYTES - 1024

/** What a cut letter keeps of its key, UTF-16 code units, and of its original headers, bytes. */
const MAX_CUT_KEY_LENGTH = 1024
const MAX_CUT_HEADERS_BYTES = 64 * 1024

/** Upper bound of the lengths around a header in a log. */
const HEADER_LENGTHS_BYTES = 10

/** What was cut and its original bytes, such as `value=3145728`. */
const HEADER_TRUNCATED = 'truncated'

/**
 * Kafka's timestamp of a record without a time, for letters with an impossible time: brokers may refuse times far from
 * theirs, and a letter of the year 9999 would outlive all retention, as would the letters after it.
 */
const NO_TIME = -1
const HEADER_TIMESTAMP = 'timestamp'

/** The record with the headers `told`, cut so that every log takes it. */
function letterOf(original: NewRecord, told: Headers): NewRecord {
  const { key, value, headers } = original
  const timed = timestampOf(original.timestamp)
  const letter = { key, value, timestamp: timed.timestamp, headers: { ...headers, ...told, ...timed.told } }
  return estimatedBytes(letter) <= MAX_LETTER_BYTES ? letter : cut(letter, headers ?? {}, { ...told, ...timed.told })
}

/** Another writer's 64 bits may be more than a number here can hold. */
function timestampOf(timestamp: number): { readonly timestamp: number; readonly told?: Headers } {
  if (timestamp >= 0 && timestamp <= MAX_TIME_MS) return { timestamp }
  return { timestamp: NO_TIME, told: { [HEADER_TIMESTAMP]: String(timestamp) } }
}

/** The value is cut last, as a person looks for it: it gets all the room that is left. */
function cut(letter: NewRecord, original: Headers, told: Headers): NewRecord {
  const truncated: string[] = []
  let { key, value } = letter
  if (key !== null && key.length > MAX_CUT_KEY_LENGTH) {
    truncated.push(`key=${Buffer.byteLength(key)}`)
    key = key.slice(0, MAX_CUT_KEY_LENGTH)
  }
  let headers: Record<string, string> = {}
  let all = 0
  let kept = 0
  for (const [name, text] of Object.entries(original)) {
    const bytes = headerBytes(name, text)
    all += bytes - HEADER_LENGTHS_BYTES
    if (kept + bytes > MAX_CUT_HEADERS_BYTES) continue
    headers[name] = text
    kept += bytes
  }
  if (Object.keys(headers).length < Object.keys(original).length) truncated.push(`headers=${all}`)
  headers = { ...headers, ...told }
  const room = MAX_LETTER_BYTES - estimatedBytes({ ...letter, key, value: null, headers })
  if (value !== null && value.byteLength > room) {
    truncated.push(`value=${value.byteLength}`)
    value = value.subarray(0, room)
  }
  headers[HEADER_TRUNCATED] = truncated.join(' ')
  return { key, value, timestamp: letter.timestamp, headers }
}

/** An upper bound: UTF-8 takes at most three bytes per UTF-16 code unit. */
function estimatedBytes({ key, value, headers = {} }: NewRecord): number {
  let bytes = (key?.length ?? 0) * 3 + (value?.byteLength ?? 0)
  for (const name in headers) bytes += headerBytes(name, headers[name] as string)
  return bytes
}

function headerBytes(name: string, text: string): number {
  return Buffer.byteLength(name) + Buffer.byteLength(text) + HEADER_LENGTHS_BYTES
}

/** The reasons that lie in a message of telemetry. */
export type MessageFault = Extract<
  RejectionReason,
  | 'not-an-object'
  | 'too-deep'
  | 'too-many-metrics'
  | 'metric-name-too-long'
  | 'bad-metric-name'
  | 'bad-number'
  | 'bad-seq'
  | 'empty-array'
  | 'too-many-messages'
>
