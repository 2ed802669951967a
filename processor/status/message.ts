import { type MessageFault } from '../contract/dead-letter.ts'
import { isDigit, isObject, type Json, type JsonObject, JsonScanner, MAX_DEPTH } from '../contract/json.ts'
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

function decodeMessage(json: Json, receivedAt: number, depth: number): Reading | MessageFault {
  const parts = partsOf(json, depth)
  return typeof parts === 'string' ? parts : readingOf(parts, receivedAt)
}

interface Parts {
  readonly ts: Json | undefined
  readonly seq: number | undefined
  readonly names: readonly string[]
  readonly values: readonly Json[]
}

/** `depth` of the message in its payload: 1, or 2 in an array. */
function partsOf(json: Json, depth: number): Parts | MessageFault {
  if (!isObject(json)) return 'not-an-object'
  if (!isEnvelope(json)) {
    const flat = flatten(json, depth)
    return typeof flat === 'string' ? flat : { ts: undefined, seq: undefined, ...flat }
  }
  const { ts, seq } = json
  if (seq !== undefined && !isSeq(seq)) return 'bad-seq'
  const flat = flatten(json.values as JsonObject, depth + 1)
  return typeof flat === 'string' ? flat : { ts, seq, ...flat }
}

function isSeq(seq: Json): seq is number {
  return Number.isSafeInteger(seq) && (seq as number) >= 0
}

function readingOf({ ts, seq, names, values }: Parts, receivedAt: number): Reading {
  const at = ts === undefined ? undefined : eventTime(ts, receivedAt)
  return { at, skewed: ts !== undefined && at === undefined, seq, names, values }
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

const QUOTE = 0x22
const BACKSLASH = 0x5c
const MINUS = 0x2d
/** Bytes of a number after its first digit. */
const NUMBER_BYTES = new Set(Buffer.from('0123456789.eE+-'))

/** Layouts kept; at the bound the oldest goes. An unknown message is compared with each up to the first difference. */
const MAX_LAYOUTS = 8
/** Bounds of a layout that is kept. */
const MAX_NUMBERS = 64
const MAX_LAYOUT_BYTES = 4096
/** One in this many messages of unknown layout becomes a layout. */
const LEARN_EVERY = 256

/** The bytes of one kind of message, without its numbers. */
interface Layout {
  /** The bytes before each number, and after the last. */
  readonly literals: readonly Uint8Array[]
  /** Index of the number that is `ts`, and `seq`. Undefined: there is none. */
  readonly ts: number | undefined
  readonly seq: number | undefined
  readonly names: readonly string[]
  /** For each name the index of the number that is its value. Undefined: the value is always the one in `constants`. */
  readonly slots: readonly (number | undefined)[]
  readonly constants: readonly Json[]
}

/**
 * Reads messages that differ from an earlier one only in their numbers, as most do, in a quarter of the time: the bytes
 * between the numbers were checked when they first came. The result is that of `decodeMessages`.
 */
export class Layouts {
  readonly #known: Layout[] = []
  #latest = 0
  #oldest = 0
  #unknown = 0
  readonly #scanner = new JsonScanner()
  readonly #numbers: number[] = Array.from({ length: MAX_NUMBERS }, () => 0)

  /** Undefined: the layout is unknown, or a number is invalid. */
  read(bytes: Uint8Array, receivedAt: number): Reading | undefined {
    const known = this.#known
    for (let i = 0, k = this.#latest; i < known.length; i++, k = k + 1 === known.length ? 0 : k + 1) {
      const layout = known[k] as Layout
      if (!this.#scan(bytes, layout)) continue
      this.#latest = k
      const { ts, seq, names, slots, constants } = layout
      const numbers = this.#numbers
      const number = seq === undefined ? undefined : (numbers[seq] as number)
      if (number !== undefined && !isSeq(number)) return undefined
      const values = constants.slice()
      for (let n = 0; n < slots.length; n++) {
        const slot = slots[n]
        if (slot !== undefined) values[n] = numbers[slot] as number
      }
      const parts = { ts: ts === undefined ? undefined : (numbers[ts] as number), seq: number, names, values }
      return readingOf(parts, receivedAt)
    }
    return undefined
  }

  #scan(bytes: Uint8Array, { literals }: Layout): boolean {
    const scanner = this.#scanner
    scanner.begin(bytes)
    const last = literals.length - 1
    for (let i = 0; i < last; i++) {
      if (!scanner.literal(literals[i] as Uint8Array)) return false
      const number = scanner.number()
      if (Number.isNaN(number)) return false
      this.#numbers[i] = number
    }
    return scanner.literal(literals[last] as Uint8Array) && scanner.ended
  }

  /** Learns from a valid message that `read` did not know. */
  offer(bytes: Uint8Array): void {
    if (this.#unknown++ % LEARN_EVERY !== 0 || bytes.length > MAX_LAYOUT_BYTES) return
    const layout = layoutOf(bytes)
    if (layout === undefined) return
    this.#latest = this.#known.length < MAX_LAYOUTS ? this.#known.length : this.#oldest++ % MAX_LAYOUTS
    this.#known[this.#latest] = layout
  }
}

/**
 * Makes the layout of valid JSON. Undefined when a number is no value of its own: in an array, or under a repeated
 * name.
 */
function layoutOf(bytes: Uint8Array): Layout | undefined {
  const literals = literalsOf(bytes)
  if (literals === undefined) return undefined
  const parts = partsOf(JSON.parse(probeOf(literals)) as Json, 1)
  if (typeof parts === 'string') return undefined
  const { ts, seq, names, values } = parts
  if (
    (ts !== undefined && typeof ts !== 'number') ||
    values.some((value) => typeof value === 'object' && value !== null)
  )
    return undefined
  const slots = values.map((value) => (typeof value === 'number' ? value : undefined))
  const used = [ts, seq, ...slots].filter((slot) => slot !== undefined)
  if (used.length !== literals.length - 1) return undefined
  // A list of doubles holds numbers without an object for each.
  const constants = values.map((value) => (typeof value === 'number' ? 0.5 : value))
  return { literals, ts, seq, names, slots, constants }
}

/** Replaces each number by its index, so that parsing shows where each number belongs. */
function probeOf(literals: readonly Uint8Array[]): string {
  const texts = literals.map((literal) => Buffer.from(literal).toString())
  return texts.map((text, i) => (i === 0 ? text : String(i - 1) + text)).join('')
}

/** Splits valid JSON at its numbers. Undefined: it has too many, or an escape, which may hide a quote. */
function literalsOf(bytes: Uint8Array): Uint8Array[] | undefined {
  const literals: Uint8Array[] = []
  let from = 0
  let quoted = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number
    if (byte === BACKSLASH) return undefined
    if (byte === QUOTE) quoted = !quoted
    if (quoted || (byte !== MINUS && !isDigit(byte))) continue
    if (literals.length === MAX_NUMBERS) return undefined
    literals.push(Uint8Array.from(bytes.subarray(from, at)))
    while (NUMBER_BYTES.has(bytes[at + 1] as number)) at++
    from = at + 1
  }
  literals.push(Uint8Array.from(bytes.subarray(from)))
  return literals
}
