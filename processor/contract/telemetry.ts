import { isUtf8 } from 'node:buffer'
import { letterOf } from '../status/dead-letter.ts'
import { Layouts } from '../status/layout.ts'
import { decodeMessages, decodeMetric, type MessageFault, type Reading } from '../status/message.ts'
import { hasBackslashInName, isObject, type Json } from './json.ts'
import { viewOf } from './own-copy.ts'
import { HEADER_KIND, type Headers, type LogRecord, type NewRecord } from './record.ts'
import { CONNECTIVITY_REASONS, type ConnectivityReason, type ConnectivityState } from './status.ts'
import { MAX_TIME_MS } from './time.ts'
import { decodeWrite, KIND_ATTRIBUTES, KIND_DELETION, type Outcome, type Write, type WriteFault } from './write.ts'

/**
 * The telemetry topic carries records keyed by device id and stamped with the time of receipt.
 * A message keeps the bytes the device sent as its value, so that a foreign reader of the topic sees the device's own
 * JSON; the header `metric` names the metric of a single-value topic, and `will` the session whose last will it is.
 * Any other record has the header `kind`: `connectivity`, with the JSON of a `Connection` as its value; `attributes` and
 * `deletion`, which write.ts describes.
 */
export const HEADER_METRIC = 'metric'
export const HEADER_WILL = 'will'
const KIND_CONNECTIVITY = 'connectivity'

export const MAX_PAYLOAD_BYTES = 256 * 1024
const DEVICE_ID = /^[A-Za-z0-9._:-]{1,128}$/

export function isDeviceId(text: string): boolean {
  return DEVICE_ID.test(text)
}

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

/** One end of a session: what `connectivity` becomes. */
export interface Connection {
  readonly state: ConnectivityState
  readonly reason: ConnectivityReason
  readonly session: number
}

export type Decoded =
  | {
      readonly kind: 'readings'
      readonly receivedAt: number
      readonly will: number | undefined
      readonly readings: readonly Reading[]
    }
  | { readonly kind: 'connection'; readonly receivedAt: number; readonly connection: Connection }
  | { readonly kind: 'write'; readonly write: Write }
  | { readonly kind: 'rejected'; readonly reason: RejectionReason }

export function connectivityRecord(deviceId: string, connection: Connection, timestamp: number): NewRecord {
  return {
    key: deviceId,
    value: Buffer.from(JSON.stringify(connection)),
    timestamp,
    headers: { [HEADER_KIND]: KIND_CONNECTIVITY },
  }
}

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

/** Of what was decoded lately; it makes decoding faster, and changes nothing else. */
const layouts = new Layouts()

/** Pure, and total: whatever the bytes are, the answer is readings, a connection, a write, or a reason. */
export function decodeRecord(record: LogRecord): Decoded {
  if (record.key === null || !isDeviceId(record.key)) return rejected('bad-device-id')
  // Ingest stamps records; another writer of the topic may put any 64 bits there.
  const receivedAt = Math.floor(record.timestamp)
  if (!(receivedAt >= 0 && receivedAt <= MAX_TIME_MS)) return rejected('bad-timestamp')
  const bytes = record.value
  const headers = record.headers
  const kind = headers?.[HEADER_KIND]
  if (bytes === null) {
    return kind === KIND_DELETION ? writeOf(decodeWrite(headers as Headers, undefined, 0)) : rejected('not-json')
  }
  if (bytes.byteLength > MAX_PAYLOAD_BYTES) return rejected('payload-too-large')
  if (headers === undefined) {
    const reading = layouts.read(bytes, receivedAt)
    if (reading !== undefined) return { kind: 'readings', receivedAt, will: undefined, readings: [reading] }
  }
  const json = parse(bytes)
  if (typeof json === 'string') return rejected(json)
  if (kind !== undefined) return decodeKind(kind, headers as Headers, json.value, bytes.byteLength, receivedAt)
  const metric = headers?.[HEADER_METRIC]
  const readings = metric === undefined ? decodeMessages(json.value, receivedAt) : decodeMetric(metric, json.value)
  if (typeof readings === 'string') return rejected(readings)
  if (headers === undefined) layouts.offer(bytes)
  const will = headers?.[HEADER_WILL]
  return { kind: 'readings', receivedAt, will: will === undefined ? undefined : Number(will), readings }
}

function decodeKind(kind: string, headers: Headers, json: Json, bytes: number, receivedAt: number): Decoded {
  if (kind === KIND_CONNECTIVITY) return decodeConnection(json, receivedAt)
  if (kind === KIND_ATTRIBUTES || kind === KIND_DELETION) return writeOf(decodeWrite(headers, json, bytes))
  return rejected('bad-kind')
}

function writeOf(write: Write | WriteFault): Decoded {
  return typeof write === 'string' ? rejected(write) : { kind: 'write', write }
}

function rejected(reason: RejectionReason): Decoded {
  return { kind: 'rejected', reason }
}

function parse(bytes: Uint8Array): { value: Json } | RejectionReason {
  // Buffer.toString would quietly turn invalid bytes into U+FFFD.
  if (!isUtf8(bytes)) return 'not-utf8'
  const text = viewOf(bytes).toString()
  if (hasBackslashInName(text)) return 'bad-metric-name'
  try {
    return { value: JSON.parse(text) as Json }
  } catch (error) {
    if (error instanceof SyntaxError) return 'not-json'
    throw error
  }
}

function decodeConnection(json: Json, receivedAt: number): Decoded {
  if (!isObject(json)) return rejected('bad-connectivity')
  const { state, reason, session } = json
  if (state !== 'online' && state !== 'offline' && state !== 'unknown') return rejected('bad-connectivity')
  if (!CONNECTIVITY_REASONS.includes(reason as ConnectivityReason)) return rejected('bad-connectivity')
  if (!Number.isSafeInteger(session) || (session as number) < 0) return rejected('bad-connectivity')
  const connection: Connection = { state, reason: reason as ConnectivityReason, session: session as number }
  return { kind: 'connection', receivedAt, connection }
}
