import { isUtf8 } from 'node:buffer'
import { hasBackslashInName, isObject, type Json, type JsonObject } from './json.ts'
import { HEADER_KIND, type Headers, type LogRecord, type NewRecord } from './record.ts'
import { CONNECTIVITY_REASONS, type ConnectivityReason, type ConnectivityState } from './status.ts'
import { isoTime, MAX_TIME_MS } from './time.ts'
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
const MAX_DEPTH = 16
export const MAX_METRICS = 256
export const MAX_METRIC_NAME = 128
/** Messages in one array payload. */
export const MAX_ARRAY_MESSAGES = 1000
/** How far ahead of the receipt a device's clock may be, in ms. */
export const MAX_AHEAD_MS = 5 * 60_000

const DEVICE_ID = /^[A-Za-z0-9._:-]{1,128}$/

export function isDeviceId(text: string): boolean {
  return DEVICE_ID.test(text)
}

/** Why a record has no effect on a status. The dead letter's header, and the label of its counter. */
export type RejectionReason =
  | 'bad-topic'
  | 'bad-device-id'
  | 'bad-timestamp'
  | 'payload-too-large'
  | 'not-utf8'
  | 'not-json'
  | 'not-an-object'
  | 'too-deep'
  | 'too-many-metrics'
  | 'metric-name-too-long'
  | 'bad-metric-name'
  | 'bad-number'
  | 'bad-seq'
  | 'empty-array'
  | 'too-many-messages'
  | 'bad-connectivity'
  | 'bad-kind'
  | WriteFault
  | Exclude<Outcome, 'applied' | 'stale'>

/** One message: what a device said at one time. */
export interface Reading {
  /** The device's own time, ISO 8601, when it gave a usable one. */
  readonly at: string | undefined
  /** It gave a time that is not usable. */
  readonly skewed: boolean
  readonly seq: number | undefined
  /** Names and values, flattened, in order. */
  readonly names: readonly string[]
  readonly values: readonly Json[]
}

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

/** The original bytes and headers, with the reason and where they came from (`topic`, or `partition` and `offset`). */
export function deadLetter(
  reason: RejectionReason,
  original: NewRecord,
  origin: { readonly topic: string } | { readonly partition: number; readonly offset: number },
): NewRecord {
  const headers: Record<string, string> = { ...original.headers, reason }
  for (const [name, value] of Object.entries(origin)) headers[name] = String(value)
  return { key: original.key, value: original.value, timestamp: original.timestamp, headers }
}

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
  const json = parse(bytes)
  if (typeof json === 'string') return rejected(json)
  if (kind !== undefined) return decodeKind(kind, headers as Headers, json.value, bytes.byteLength, receivedAt)
  const metric = headers?.[HEADER_METRIC]
  const readings = metric === undefined ? decodeMessages(json.value, receivedAt) : decodeMetric(metric, json.value)
  if (typeof readings === 'string') return rejected(readings)
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
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const text = buffer.toString()
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

function decodeMetric(name: string, value: Json): Reading[] | RejectionReason {
  const flat = flatten({ [name]: value }, 0)
  return typeof flat === 'string' ? flat : [{ at: undefined, skewed: false, seq: undefined, ...flat }]
}

function decodeMessages(json: Json, receivedAt: number): Reading[] | RejectionReason {
  if (!Array.isArray(json)) {
    const reading = decodeMessage(json, receivedAt, 1)
    return typeof reading === 'string' ? reading : [reading]
  }
  if (json.length === 0) return 'empty-array'
  if (json.length > MAX_ARRAY_MESSAGES) return 'too-many-messages'
  const readings: Reading[] = []
  for (const message of json) {
    const reading = decodeMessage(message, receivedAt, 2)
    if (typeof reading === 'string') return reading
    readings.push(reading)
  }
  return readings
}

/** `depth`: at which depth of the payload the message stands, 1 or, in an array, 2. */
function decodeMessage(json: Json, receivedAt: number, depth: number): Reading | RejectionReason {
  if (!isObject(json)) return 'not-an-object'
  if (!isEnvelope(json)) {
    const flat = flatten(json, depth)
    return typeof flat === 'string' ? flat : { at: undefined, skewed: false, seq: undefined, ...flat }
  }
  const { ts, seq } = json
  if (seq !== undefined && !(Number.isSafeInteger(seq) && (seq as number) >= 0)) return 'bad-seq'
  const flat = flatten(json.values as JsonObject, depth + 1)
  if (typeof flat === 'string') return flat
  const at = ts === undefined ? undefined : eventTime(ts, receivedAt)
  return { at, skewed: ts !== undefined && at === undefined, seq: seq as number | undefined, ...flat }
}

/** An object whose only members are `values`, an object, and `ts` or `seq` beside it; any other object is metrics. */
function isEnvelope(json: JsonObject): boolean {
  if (!isObject(json.values)) return false
  for (const name in json) if (name !== 'values' && name !== 'ts' && name !== 'seq') return false
  return true
}

const ISO_8601 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)((?<=:\d\d:\d\d)[.,]\d{1,9})?(?:Z|([+-]\d\d)(?::?(\d\d))?)?$/

/** The ISO 8601 form of a device's `ts`; undefined when it is unusable: not a time, before 1970, or too far ahead. */
function eventTime(ts: Json, receivedAt: number): string | undefined {
  const ms = typeof ts === 'number' ? Math.floor(ts) : typeof ts === 'string' ? parseIso(ts) : Number.NaN
  if (!(ms >= 0 && ms <= receivedAt + MAX_AHEAD_MS && ms <= MAX_TIME_MS)) return undefined
  return isoTime(ms)
}

function parseIso(text: string): number {
  const match = ISO_8601.exec(text)
  if (match === null) return Number.NaN
  const [, time = '', fraction = '', hours, minutes = '00'] = match
  // A time without a zone is read as UTC: a server's local zone says nothing about the device. Date.parse wants a point
  // before the fraction and a colon in the zone, where ISO 8601 allows other forms.
  const zone = hours === undefined ? 'Z' : `${hours}:${minutes}`
  return Date.parse(`${time}${fraction.replace(',', '.')}${zone}`)
}

interface Flat {
  readonly names: string[]
  readonly values: Json[]
}

/** Nested objects become dotted names, arrays stay values. `depth`: nesting of `json` itself in its payload. */
function flatten(json: JsonObject, depth: number): Flat | RejectionReason {
  const flat: Flat = { names: [], values: [] }
  return flattenInto(flat, '', json, depth) ?? flat
}

function flattenInto(flat: Flat, prefix: string, json: JsonObject, depth: number): RejectionReason | undefined {
  if (depth > MAX_DEPTH) return 'too-deep'
  for (const name in json) {
    const value = json[name] as Json
    if (name === '') return 'bad-metric-name'
    const path = prefix === '' ? name : `${prefix}.${name}`
    if (path.length > MAX_METRIC_NAME) return 'metric-name-too-long'
    let reason: RejectionReason | undefined
    if (isObject(value)) {
      reason = flattenInto(flat, path, value, depth + 1)
    } else {
      // `__proto__` as the name of a property would replace the prototype of `reported` instead of naming a metric.
      if (path === '__proto__') return 'bad-metric-name'
      reason = checkValue(value, depth)
      flat.names.push(path)
      flat.values.push(value)
      if (flat.names.length > MAX_METRICS) return 'too-many-metrics'
    }
    if (reason !== undefined) return reason
  }
  return undefined
}

/** `depth`: nesting of the object or array that holds the value. */
function checkValue(value: Json, depth: number): RejectionReason | undefined {
  // JSON.parse reads 1e999 as Infinity, which JSON cannot write again.
  if (typeof value === 'number') return Number.isFinite(value) ? undefined : 'bad-number'
  if (typeof value !== 'object' || value === null) return undefined
  if (depth + 1 > MAX_DEPTH) return 'too-deep'
  for (const inner of Array.isArray(value) ? value : Object.values(value)) {
    const reason = checkValue(inner, depth + 1)
    if (reason !== undefined) return reason
  }
  return undefined
}
