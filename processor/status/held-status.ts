import { type Json, viewOf } from '../contract/json.ts'
import { COUNTERS, isStatus, type Status } from '../contract/status.ts'

/** The names of metrics, in the order in which a status has them. Devices of one kind share it. */
interface Shape {
  readonly names: readonly string[]
  readonly places: ReadonlyMap<string, number>
  /** The JSON before each value: the end of the metric before it, and `"name":{"value":`. */
  readonly before: readonly string[]
}

/**
 * A status as the processor holds it: folded in place, and encoded by joining texts. A value is a number or the JSON of
 * anything else, so a metric that does not change costs nothing but its place, and a device is a dozen objects for the
 * garbage collector however many metrics it has.
 */
export class HeldStatus {
  readonly deviceId: string
  rev = 0
  shape = NO_METRICS
  readonly values: (number | string)[] = []
  /** The event time of each value, ISO 8601. */
  readonly ats: string[] = []
  state: Status['connectivity']['state'] = 'unknown'
  since: string
  reason: Status['connectivity']['reason'] = 'no session seen'
  session = 0
  firstSeenAt: string
  lastSeenAt: string
  messages = 0
  late = 0
  duplicates = 0
  skewed = 0
  /** The first and the last number of each range of `sequence.seen`, range after range. Empty: there is no sequence. */
  seen: number[] = NONE_SEEN
  sequenceSession = 0
  sequenceAt: string | undefined
  /** JSON of an object that is not empty. */
  attributes: string | undefined

  /** A device that was not heard of before `receivedAt`, ISO 8601. */
  constructor(deviceId: string, receivedAt: string) {
    this.deviceId = deviceId
    this.since = receivedAt
    this.firstSeenAt = receivedAt
    this.lastSeenAt = receivedAt
  }

  /** Throws SyntaxError for what is no JSON. Undefined for JSON that is no status of the device. */
  static decode(deviceId: string, bytes: Uint8Array): HeldStatus | undefined {
    const status = JSON.parse(viewOf(bytes).toString()) as Status
    if (!isStatus(status, deviceId)) return undefined
    const held = new HeldStatus(deviceId, status.firstSeenAt)
    const { reported, sequence } = status
    held.shape = shapeOf(Object.keys(reported))
    for (const name in reported) {
      const { value, at } = reported[name] as Status['reported'][string]
      held.values.push(heldValue(value))
      // Metrics of one message have one time: they share its text.
      held.ats.push(at === held.ats.at(-1) ? (held.ats.at(-1) as string) : at)
    }
    held.rev = status.rev
    held.lastSeenAt = status.lastSeenAt
    const { state, since, reason, session } = status.connectivity
    held.state = state
    held.since = since
    held.reason = reason
    held.session = session
    for (const name of COUNTERS) held[name] = status.counters[name]
    if (sequence !== undefined) {
      held.seen = sequence.seen.flat()
      held.sequenceSession = sequence.session
      held.sequenceAt = sequence.at
    }
    if (status.attributes !== undefined) held.attributes = JSON.stringify(status.attributes)
    return held
  }

  /** Adds those of `names` that are not there, without a value: with a time before all others. */
  widen(names: readonly string[]): void {
    const { shape, values, ats } = this
    const all = [...new Set([...shape.names, ...names])]
    for (let i = values.length; i < all.length; i++) {
      values.push(0)
      ats.push('')
    }
    // JSON.parse puts names that are array indexes first: a status must not depend on whether it went through its bytes.
    if (names.some((name) => ARRAY_INDEX.test(name))) {
      const order = Object.entries(Object.fromEntries(all.map((name, i) => [name, i])))
      const [oldValues, oldAts] = [values.slice(), ats.slice()]
      for (const [to, [name, from]] of order.entries()) {
        all[to] = name
        values[to] = oldValues[from] as number | string
        ats[to] = oldAts[from] as string
      }
    }
    this.shape = shapeOf(all)
  }

  /** The JSON that JSON.stringify would write of the status. */
  text(): string {
    const { shape, values, ats, seen } = this
    // Ids and times have nothing to escape.
    let json = '{"deviceId":"' + this.deviceId + '","rev":' + this.rev + ',"reported":{'
    for (let i = 0; i < values.length; i++) json += shape.before[i] + (values[i] + ',"at":"' + ats[i])
    json += values.length > 0 ? '"}},"connectivity":{"state":"' : '},"connectivity":{"state":"'
    json += this.state + '","since":"' + this.since + '","reason":"' + this.reason + '","session":' + this.session
    json += '},"firstSeenAt":"' + this.firstSeenAt + '","lastSeenAt":"' + this.lastSeenAt
    json += '","counters":{"messages":' + this.messages + ',"late":' + this.late
    json += ',"duplicates":' + this.duplicates + ',"skewed":' + this.skewed
    if (seen.length > 0) {
      json += '},"sequence":{"seen":['
      for (let i = 0; i < seen.length; i += 2) json += (i === 0 ? '[' : ',[') + seen[i] + ',' + seen[i + 1] + ']'
      json += '],"session":' + this.sequenceSession
      if (this.sequenceAt !== undefined) json += ',"at":"' + this.sequenceAt + '"'
    }
    return this.attributes === undefined ? json + '}}' : json + '},"attributes":' + this.attributes + '}'
  }

  encode(): Buffer {
    return Buffer.from(this.text())
  }
}

const ARRAY_INDEX = /^(?:0|[1-9]\d{0,9})$/

/** The form in which a status holds `value`. Text conversion writes numbers as JSON does. */
export function heldValue(value: Json): number | string {
  return typeof value === 'number' ? value : JSON.stringify(value)
}

const NONE_SEEN: number[] = []

/** Names in all shapes that are kept. At the bound all are forgotten, and devices keep theirs until they change. */
const MAX_NAMES = 65_536
const NO_METRICS: Shape = { names: [], places: new Map(), before: [] }
const shapes = new Map<string, Shape>()
let namesKept = 0
let latest = NO_METRICS

function shapeOf(names: readonly string[]): Shape {
  // Most devices of a fleet are of one kind.
  if (isSame(latest.names, names)) return latest
  const key = JSON.stringify(names)
  let shape = shapes.get(key)
  if (shape === undefined) {
    shape = {
      names,
      places: new Map(names.map((name, i) => [name, i])),
      before: names.map((name, i) => `${i === 0 ? '' : '"},'}${JSON.stringify(name)}:{"value":`),
    }
    namesKept += names.length
    if (namesKept > MAX_NAMES) {
      shapes.clear()
      namesKept = names.length
    }
    shapes.set(key, shape)
  }
  latest = shape
  return shape
}

function isSame(names: readonly string[], others: readonly string[]): boolean {
  if (names.length !== others.length) return false
  for (let i = 0; i < names.length; i++) if (names[i] !== others[i]) return false
  return true
}
