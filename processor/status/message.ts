import { type MessageFault } from '../contract/dead-letter.ts'
import { isObject, type Json, type JsonObject, MAX_DEPTH } from '../contract/json.ts'
import { isoTime, MAX_TIME_MS, parseTime } from '../contract/time.ts'

export const MAX_METRICS = 256
export const MAX_METRIC_NAME = 128
export const MAX_ARRAY_MESSAGES = 1000
/** How far a device's clock may be ahead of the receipt, ms. */
export const MAX_AHEAD_MS = 5 * 60_000

/** One message: what a device said at one time. */
export interface Reading {
  /** The device's own time, ISO 8601, when it gave a usable one. */
  readonly at: string | undefined
  /** The device gave a time that is unusable. */
  readonly skewed: boolean
  readonly seq: number | undefined
  /** Names and values, flattened, in order. */
  readonly names: readonly string[]
  readonly values: readonly Json[]
}

/** Decodes the payload of a topic of one metric. */
export function decodeMetric(name: string, value: Json): Reading[] | MessageFault {
  const flat = flatten({ [name]: value }, 0)
  return typeof flat === 'string' ? flat : [{ at: undefined, skewed: false, seq: undefined, ...flat }]
}

/** Decodes one message or an array of them. `receivedAt`: epoch ms. */
export function decodeMessages(json: Json, receivedAt: number): Reading[] | MessageFault {
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

/** `depth` of the message in its payload: 1, or 2 in an array. */
function decodeMessage(json: Json, receivedAt: number, depth: number): Reading | MessageFault {
  if (!isObject(json)) return 'not-an-object'
  if (!isEnvelope(json)) {
    const flat = flatten(json, depth)
    return typeof flat === 'string' ? flat : { at: undefined, skewed: false, seq: undefined, ...flat }
  }
  const { ts, seq } = json
  if (seq !== undefined && !isSeq(seq)) return 'bad-seq'
  const flat = flatten(json.values as JsonObject, depth + 1)
  if (typeof flat === 'string') return flat
  const at = ts === undefined ? undefined : eventTime(ts, receivedAt)
  return { at, skewed: ts !== undefined && at === undefined, seq, names: flat.names, values: flat.values }
}

function isSeq(seq: Json): seq is number {
  return Number.isSafeInteger(seq) && (seq as number) >= 0
}

/** An envelope has `values`, an object, and at most `ts` and `seq` beside it. Any other object is metrics. */
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
  return parseTime(`${time}${fraction.replace(',', '.')}${zone}`)
}

interface Flat {
  readonly names: string[]
  readonly values: Json[]
}

/** Nested objects become dotted names, arrays stay values. `depth`: nesting of `json` itself in its payload. */
function flatten(json: JsonObject, depth: number): Flat | MessageFault {
  const flat: Flat = { names: [], values: [] }
  return flattenInto(flat, '', json, depth) ?? flat
}

function flattenInto(flat: Flat, prefix: string, json: JsonObject, depth: number): MessageFault | undefined {
  if (depth > MAX_DEPTH) return 'too-deep'
  for (const name in json) {
    const value = json[name] as Json
    if (name === '') return 'bad-metric-name'
    const path = prefix === '' ? name : `${prefix}.${name}`
    if (path.length > MAX_METRIC_NAME) return 'metric-name-too-long'
    let reason: MessageFault | undefined
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
function checkValue(value: Json, depth: number): MessageFault | undefined {
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
