import type { Json } from '../contract/json.ts'
import type { ConnectivityState, Status } from '../contract/status.ts'
import type { Decoded } from '../contract/telemetry.ts'
import { isoTime } from '../contract/time.ts'

/** A value that JSON writes as text conversion does. */
export type Scalar = number | boolean | null

/** The metrics of devices that report the same ones, with the bytes around their values. */
export interface Shape {
  readonly names: readonly string[]
  /** Before each value: `"name":{"value":`, with what ends the member before it. */
  readonly before: readonly Uint8Array[]
}

/**
 * The status of a device that does what most do all the time: it reports the same metrics with every message, all of one
 * time, as numbers; if it numbers its messages, they come in order. Nothing else is in it than in `Status`: it is
 * advanced in place and encoded without an object per metric, in a fraction of the time, and the collector meets two
 * objects for thirty.
 */
export interface PlainStatus {
  readonly shape: Shape
  readonly values: Scalar[]
  /** Event time of all metrics. */
  at: string
  rev: number
  messages: number
  readonly late: number
  readonly duplicates: number
  readonly skewed: number
  readonly firstSeenAt: string
  lastSeenAt: string
  /** `sequence`: its one range, and its time; no `high` without a sequence. */
  readonly low: number
  high: number | undefined
  sequenceAt: string
  sequenceSession: number
  readonly state: ConnectivityState
  readonly session: number
  /** `{"deviceId":…,"rev":` and from `},"connectivity":` to `"lastSeenAt":"`. */
  readonly head: string
  readonly middle: string
  /** `,"attributes":…}`, or `}` alone. */
  readonly tail: string
}

/** Kinds of device kept; when there are more, all are forgotten, and their devices keep theirs until they change. */
const MAX_SHAPES = 1024
const shapes = new Map<string, Shape>()
let latest: Shape | undefined
/** The last ones that differed from the one before; at the bound the oldest goes. */
const MAX_RECENT = 8
const recent: Shape[] = []
let oldest = 0
/** With more metrics than this a status is not plain: its encoding has a bound. */
const MAX_PLAIN_METRICS = 64
/** Of one metric beside its name; a number takes up to 25 characters, and a time 24. */
const METRIC_BYTES = 64
/** Of all else beside head and middle. */
const REST_BYTES = 512
/** Of a buffer that statuses share. */
const CHUNK_BYTES = 256 * 1024

/** Undefined when `status` is not plain. */
export function plainOf(status: Status): PlainStatus | undefined {
  const { deviceId, reported, connectivity, counters, sequence, attributes } = status
  if (sequence !== undefined && (sequence.seen.length !== 1 || sequence.at === undefined)) return undefined
  const names: string[] = []
  const values: Scalar[] = []
  let at: string | undefined
  for (const name in reported) {
    const metric = reported[name] as Status['reported'][string]
    at ??= metric.at
    if (metric.at !== at || !isScalar(metric.value) || names.length === MAX_PLAIN_METRICS) return undefined
    names.push(name)
    values.push(metric.value)
  }
  if (at?.length !== TIME_BYTES || status.lastSeenAt.length !== TIME_BYTES) return undefined
  const { state, since, reason, session } = connectivity
  return {
    shape: shapeOf(names),
    values,
    at,
    rev: status.rev,
    ...counters,
    firstSeenAt: status.firstSeenAt,
    lastSeenAt: status.lastSeenAt,
    low: sequence?.seen[0]?.[0] ?? 0,
    high: sequence?.seen[0]?.[1],
    sequenceAt: sequence?.at ?? '',
    sequenceSession: sequence?.session ?? 0,
    state,
    session,
    head: `{"deviceId":"${deviceId}","rev":`,
    middle:
      `"}},"connectivity":{"state":"${state}","since":"${since}","reason":"${reason}","session":${session}` +
      `},"firstSeenAt":"${status.firstSeenAt}","lastSeenAt":"`,
    tail: attributes === undefined ? '}' : `,"attributes":${JSON.stringify(attributes)}}`,
  }
}

/** What `fold` does, in place; false, and nothing has changed, when the record asks for more than is plain. */
export function advance(plain: PlainStatus, record: Decoded): boolean {
  if (record.kind !== 'readings' || record.will !== undefined || record.readings.length !== 1) return false
  const receivedAt = isoTime(record.receivedAt)
  const { names, values, seq, skewed, at = receivedAt } = record.readings[0] as (typeof record.readings)[number]
  const { shape, high } = plain
  if (skewed || at < plain.at || receivedAt < plain.firstSeenAt || !isSame(names, shape.names)) return false
  for (let i = 0; i < values.length; i++) if (!isScalar(values[i] as Json)) return false
  if (seq !== undefined) {
    if (high === undefined || seq !== high + 1 || record.readings[0]?.at === undefined) return false
    plain.high = seq
    plain.sequenceSession = plain.session
    if (at > plain.sequenceAt) plain.sequenceAt = at
  }
  for (let i = 0; i < values.length; i++) plain.values[i] = values[i] as Scalar
  plain.at = at
  plain.rev++
  plain.messages++
  if (receivedAt > plain.lastSeenAt) plain.lastSeenAt = receivedAt
  return true
}

/** Encodes statuses one after the other, so that many share a buffer; each keeps that buffer alive. */
export class PlainEncoder {
  #chunk = Buffer.alloc(0)
  #at = 0

  /** What `encodeStatus` would give. `more`: how many will follow. */
  encode(plain: PlainStatus, more: number): Buffer {
    const bound = plainBound(plain)
    if (this.#chunk.length - this.#at < bound) {
      this.#chunk = Buffer.allocUnsafeSlow(Math.max(bound, Math.min(CHUNK_BYTES, bound * (more + 1))))
      this.#at = 0
    }
    const start = this.#at
    this.#at = writePlain(plain, this.#chunk, start)
    return this.#chunk.subarray(start, this.#at)
  }
}

/** For whom a plain status has too little. */
export function statusOf(plain: PlainStatus): Status {
  return JSON.parse(new PlainEncoder().encode(plain, 0).toString()) as Status
}

/** At least the bytes that `plain` is encoded to. */
export function plainBound({ shape, head, middle, tail }: PlainStatus): number {
  // UTF-8 takes at most three bytes per UTF-16 code unit.
  let bytes = head.length + middle.length + tail.length * 3 + REST_BYTES
  for (const before of shape.before) bytes += before.length + METRIC_BYTES
  return bytes
}

/** Writes what `encodeStatus` would give, where there is room for `plainBound` bytes. Gives where it ends. */
export function writePlain(plain: PlainStatus, into: Buffer, start: number): number {
  const { shape, values } = plain
  // The one native call for a long text costs less than its characters do here.
  let at = start + into.write(plain.head, start, 'latin1')
  at = writeInteger(into, at, plain.rev)
  let timeAt = 0
  for (let i = 0; i < values.length; i++) {
    at = writeBytes(into, at, shape.before[i] as Uint8Array)
    at = writeScalar(into, at, values[i] as Scalar)
    at = writeBytes(into, at, AT)
    // All have one time, and its bytes are there after the first.
    if (i === 0) writeText(into, (timeAt = at), plain.at)
    else for (let k = 0; k < TIME_BYTES; k++) into[at + k] = into[timeAt + k] as number
    at += TIME_BYTES
  }
  at += into.write(plain.middle, at, 'latin1')
  at = writeText(into, at, plain.lastSeenAt)
  at = writeInteger(into, writeBytes(into, at, MESSAGES), plain.messages)
  at = writeInteger(into, writeBytes(into, at, LATE), plain.late)
  at = writeInteger(into, writeBytes(into, at, DUPLICATES), plain.duplicates)
  at = writeInteger(into, writeBytes(into, at, SKEWED), plain.skewed)
  if (plain.high === undefined) return writeTail(into, writeBytes(into, at, END), plain)
  at = writeInteger(into, writeBytes(into, at, SEQUENCE), plain.low)
  into[at++] = COMMA
  at = writeInteger(into, at, plain.high)
  at = writeInteger(into, writeBytes(into, at, SESSION), plain.sequenceSession)
  at = writeText(into, writeBytes(into, at, AT), plain.sequenceAt)
  return writeTail(into, writeBytes(into, at, SEQUENCE_END), plain)
}

function writeTail(into: Buffer, at: number, { tail }: PlainStatus): number {
  return tail.length === 1 ? writeText(into, at, tail) : at + into.write(tail, at)
}

/** Of a time in ISO 8601, as `isoTime` gives it. */
export const TIME_BYTES = 24
const COMMA = 0x2c
const MINUS = 0x2d
const ZERO = 0x30
export const AT = Buffer.from(',"at":"')
export const MESSAGES = Buffer.from('","counters":{"messages":')
export const LATE = Buffer.from(',"late":')
export const DUPLICATES = Buffer.from(',"duplicates":')
export const SKEWED = Buffer.from(',"skewed":')
export const SEQUENCE = Buffer.from('},"sequence":{"seen":[[')
export const SESSION = Buffer.from(']],"session":')
export const SEQUENCE_END = Buffer.from('"}')
export const END = Buffer.from('}')

function shapeOf(names: readonly string[]): Shape {
  // A fleet's devices are mostly of one kind.
  if (latest !== undefined && isSame(latest.names, names)) return latest
  const key = JSON.stringify(names)
  let shape = shapes.get(key)
  if (shape === undefined) {
    const before = names.map((name, i) => {
      return Buffer.from(`${i === 0 ? ',"reported":{' : '"},'}${JSON.stringify(name)}:{"value":`)
    })
    shape = { names, before }
    if (shapes.size >= MAX_SHAPES) shapes.clear()
    shapes.set(key, shape)
  }
  latest = shape
  if (!recent.includes(shape)) recent[recent.length < MAX_RECENT ? recent.length : oldest++ % MAX_RECENT] = shape
  return shape
}

export function recentShapes(): readonly Shape[] {
  return recent
}

function isSame(names: readonly string[], others: readonly string[]): boolean {
  if (names.length !== others.length) return false
  for (let i = 0; i < names.length; i++) if (names[i] !== others[i]) return false
  return true
}

function isScalar(value: Json): value is Scalar {
  return typeof value === 'number' || typeof value === 'boolean' || value === null
}

function writeBytes(into: Uint8Array, start: number, bytes: Uint8Array): number {
  for (let i = 0; i < bytes.length; i++) into[start + i] = bytes[i] as number
  return start + bytes.length
}

/** Of ASCII. */
function writeText(into: Uint8Array, start: number, text: string): number {
  for (let i = 0; i < text.length; i++) into[start + i] = text.charCodeAt(i)
  return start + text.length
}

function writeScalar(into: Uint8Array, start: number, value: Scalar): number {
  if (typeof value === 'number' && Number.isInteger(value)) return writeInteger(into, start, value)
  return writeText(into, start, String(value))
}

/** The digits of a small integer are cheaper made here; beyond that, text conversion makes the shortest form. */
function writeInteger(into: Uint8Array, start: number, value: number): number {
  if (!(value >= -MAX_SMALL && value <= MAX_SMALL)) return writeText(into, start, String(value))
  let at = start
  let rest = value
  if (rest < 0) {
    into[at++] = MINUS
    rest = -rest
  }
  let digits = 1
  for (let limit = 10; rest >= limit; limit *= 10) digits++
  for (let i = at + digits - 1; i >= at; i--) {
    const tenth = Math.trunc(rest / 10)
    into[i] = ZERO + rest - tenth * 10
    rest = tenth
  }
  return at + digits
}

const MAX_SMALL = 99_999_999
