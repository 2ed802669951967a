import { type Headers, MAX_RECORD_BYTES, type NewRecord } from './record.ts'
import { MAX_TIME_MS } from './time.ts'
import type { Outcome, WriteFault } from './write.ts'

/** Why a record has no effect on a status. The dead letter's header, and the label of its counter. */
export type RejectionReason =
  | 'bad-topic'
  | 'reserved-topic'
  | 'bad-device-id'
  | 'bad-timestamp'
  | 'payload-too-large'
  | 'not-utf8'
  | 'not-json'
  | 'bad-connectivity'
  | 'bad-kind'
  | MessageFault
  | WriteFault
  | Exclude<Outcome, 'applied' | 'stale'>

const REASONS: Readonly<Record<RejectionReason, true>> = {
  'bad-topic': true,
  'reserved-topic': true,
  'bad-device-id': true,
  'bad-timestamp': true,
  'payload-too-large': true,
  'not-utf8': true,
  'not-json': true,
  'bad-connectivity': true,
  'bad-kind': true,
  'not-an-object': true,
  'too-deep': true,
  'too-many-metrics': true,
  'metric-name-too-long': true,
  'bad-metric-name': true,
  'bad-number': true,
  'bad-seq': true,
  'empty-array': true,
  'too-many-messages': true,
  'bad-attribute-name': true,
  'attributes-too-large': true,
  'bad-operation': true,
  'bad-condition': true,
  'bad-deletion': true,
  'unknown-device': true,
  'status-too-large': true,
}

export const REJECTION_REASONS = Object.keys(REASONS) as readonly RejectionReason[]

/**
 * The original bytes and headers, with the reason and where they came from (`topic`, or `partition` and `offset`). What no
 * log would take is cut, and the header `truncated` says how large it was; a time that cannot be stands in `timestamp`.
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
 * What a dead letter takes at most, bytes, as `bytesOf` counts them. What logs write around the parts of a record, and the
 * header `truncated`, take less than the rest. No MQTT packet that is read makes a larger one; but other
 * writers of the telemetry topic put there what the topic takes, compressed, and a letter that no log takes would stop
 * the partition for good.
 */
const MAX_LETTER_BYTES = MAX_RECORD_BYTES - 1024

/** What a letter that is too large keeps of its key, UTF-16 code units, and of the headers of its writer, bytes. */
const MAX_CUT_KEY_LENGTH = 1024

const MAX_CUT_HEADERS_BYTES = 64 * 1024

/** The most that the lengths of a header take in a log. */
const HEADER_LENGTHS_BYTES = 10

/** Of a letter that did not fit: what was cut, and the bytes it had, such as `value=3145728`. */
const HEADER_TRUNCATED = 'truncated'

/**
 * What Kafka calls a record without a time. A letter of a time that cannot be has it, and tells the time it had in a
 * header: brokers may refuse times far from theirs, and a letter of the year 9999 would outlive all retention, as would
 * what comes after it.
 */
const NO_TIME = -1

const HEADER_TIMESTAMP = 'timestamp'

/** The record with what is `told` of it, such that every log takes it. */
function letterOf(original: NewRecord, told: Headers): NewRecord {
  const { key, value, headers } = original
  const timed = timestampOf(original.timestamp)
  const letter = { key, value, timestamp: timed.timestamp, headers: { ...headers, ...told, ...timed.told } }
  return bytesOf(letter) <= MAX_LETTER_BYTES ? letter : cut(letter, headers ?? {}, { ...told, ...timed.told })
}

/** 64 bits of another writer need not be a whole number here, nor one that can be written again. */
function timestampOf(timestamp: number): { readonly timestamp: number; readonly told?: Headers } {
  if (timestamp >= 0 && timestamp <= MAX_TIME_MS) return { timestamp }
  return { timestamp: NO_TIME, told: { [HEADER_TIMESTAMP]: String(timestamp) } }
}

/** The value last: it is what a person looks for, and gets all the room that is left. */
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
  const room = MAX_LETTER_BYTES - bytesOf({ ...letter, key, value: null, headers })
  if (value !== null && value.byteLength > room) {
    truncated.push(`value=${value.byteLength}`)
    value = value.subarray(0, room)
  }
  headers[HEADER_TRUNCATED] = truncated.join(' ')
  return { key, value, timestamp: letter.timestamp, headers }
}

/** A bound: UTF-8 takes at most three bytes per UTF-16 code unit, and logs count a key so. */
function bytesOf({ key, value, headers = {} }: NewRecord): number {
  let bytes = (key?.length ?? 0) * 3 + (value?.byteLength ?? 0)
  for (const name in headers) bytes += headerBytes(name, headers[name] as string)
  return bytes
}

function headerBytes(name: string, text: string): number {
  return Buffer.byteLength(name) + Buffer.byteLength(text) + HEADER_LENGTHS_BYTES
}

/** Why a message has no effect on a status. */
export type MessageFault =
  | 'not-an-object'
  | 'too-deep'
  | 'too-many-metrics'
  | 'metric-name-too-long'
  | 'bad-metric-name'
  | 'bad-number'
  | 'bad-seq'
  | 'empty-array'
  | 'too-many-messages'
