import type { Subscription } from 'aedes'
import type { RejectionReason } from '../../processor/contract/dead-letter.ts'
import { isDeviceId } from '../../processor/contract/record.ts'

const TREE = 'devices/'
const LEVEL = 'telemetry'
/** Levels of a topic or filter; qlobber, which aedes routes with, has no more. */
const MAX_LEVELS = 100

/** A publish that goes to the telemetry of a device. `metric`: the one that the topic names, in the single-value form. */
export interface DeviceRoute {
  readonly deviceId: string
  readonly metric: string | undefined
  readonly reason: undefined
}

/** A publish that goes to the dead letters. */
export interface LetterRoute {
  readonly deviceId: string | undefined
  readonly metric: string | undefined
  readonly reason: RejectionReason
}

export type Route = DeviceRoute | LetterRoute

const BAD_TOPIC: Route = { deviceId: undefined, metric: undefined, reason: 'bad-topic' }
const RESERVED_TOPIC: Route = { deviceId: undefined, metric: undefined, reason: 'reserved-topic' }
const BAD_DEVICE_ID: Route = { deviceId: undefined, metric: undefined, reason: 'bad-device-id' }

/** Telemetry topics are `devices/{deviceId}/telemetry` and `devices/{deviceId}/telemetry/{metric}`, the metric one level. */
export function routeOf(topic: string): Route {
  if (!inTelemetryTree(topic)) return isReserved(topic) ? RESERVED_TOPIC : BAD_TOPIC
  const end = topic.indexOf('/', TREE.length)
  const after = end + 1 + LEVEL.length
  let metric: string | undefined
  if (topic.length > after) {
    if (topic.length === after + 1 || topic.indexOf('/', after + 1) !== -1) return BAD_TOPIC
    metric = topic.slice(after + 1)
  }
  const deviceId = topic.slice(TREE.length, end)
  return isDeviceId(deviceId) ? { deviceId, metric, reason: undefined } : BAD_DEVICE_ID
}

/** The topic begins with `devices/{anything}/telemetry`. */
export function inTelemetryTree(topic: string): boolean {
  if (!topic.startsWith(TREE)) return false
  const end = topic.indexOf('/', TREE.length)
  if (end === -1 || !topic.startsWith(LEVEL, end + 1)) return false
  const after = end + 1 + LEVEL.length
  return topic.length === after || topic.charCodeAt(after) === 0x2f
}

/** Topics of the broker itself, where clients may not publish [MQTT-4.7.2-1]. */
export function isReserved(name: string): boolean {
  return name.startsWith('$')
}

/** Whether a filter may match a telemetry topic; true when in doubt. */
export function mayMatchTelemetry(filter: string): boolean {
  const levels = filter.split('/', 3)
  if (levels[0] === '#') return true
  if (levels[0] !== 'devices' && levels[0] !== '+') return false
  if (levels[1] === '#') return true
  return levels[2] === LEVEL || levels[2] === '+' || levels[2] === '#'
}

/** Whether a topic matches a well-formed filter, by MQTT 3.1.1 section 4.7. */
export function matches(filter: string, topic: string): boolean {
  // [MQTT-4.7.2-1]
  if (topic.startsWith('$') && !filter.startsWith('$')) return false
  let at = 0
  for (let i = 0; i < filter.length; i++) {
    const sign = filter[i]
    if (sign === '#') return true
    if (sign === '+') {
      const end = topic.indexOf('/', at)
      at = end === -1 ? topic.length : end
    } else if (at < topic.length && sign === topic[at]) {
      at++
    } else {
      // `a/#` matches `a` too.
      return at === topic.length && filter.slice(i) === '/#'
    }
  }
  return at === topic.length
}

/** A topic or filter with more levels than aedes can route. */
export function isTooDeep(name: string): boolean {
  let levels = 1
  for (let at = name.indexOf('/'); at !== -1 && levels <= MAX_LEVELS; at = name.indexOf('/', at + 1)) levels++
  return levels > MAX_LEVELS
}

/** Levels and wildcards of a filter. */
export function costOf(filter: string): { readonly levels: number; readonly wildcards: number } {
  const levels = filter.split('/')
  return { levels: levels.length, wildcards: levels.filter((level) => level === '+' || level === '#').length }
}

/**
 * Text with U+0000, or with U+FFFD, to which ill-formed UTF-8 was decoded: it closes the connection [MQTT-1.5.3-1,
 * MQTT-1.5.3-2].
 */
export function isIllFormed(text: string): boolean {
  return text.includes('\u0000') || text.includes('\ufffd')
}

export type QoS = Subscription['qos']

/** UTF-16 code units of a topic that each session may keep; a longer one is forgotten after the turn. */
const MAX_KEPT_TOPIC_LENGTH = 512

/** The topic filters of a session, and the QoS granted to each. */
export class Filters {
  readonly #granted = new Map<string, QoS>()
  /** Filters by granted QoS. */
  readonly #counts: [number, number, number] = [0, 0, 0]
  /** Of all filters. */
  levels = 0
  /** The last search and its result: aedes asks once for each filter that a message matches. */
  #found: { readonly qos: QoS; readonly topic: string; readonly most: QoS } | undefined

  has(filter: string): boolean {
    return this.#granted.has(filter)
  }

  set(filter: string, qos: QoS): void {
    this.delete(filter)
    this.#granted.set(filter, qos)
    this.levels += costOf(filter).levels
    this.#counts[qos]++
    this.#found = undefined
  }

  all(): Iterable<string> {
    return this.#granted.keys()
  }

  delete(filter: string): void {
    const qos = this.#granted.get(filter)
    if (qos === undefined) return
    this.#granted.delete(filter)
    this.levels -= costOf(filter).levels
    this.#counts[qos]--
    this.#found = undefined
  }

  /** The QoS at which a message that was published at `qos` is delivered [MQTT-3.3.5-1, MQTT-3.8.4-6]. */
  atMost(qos: QoS, topic: string): QoS {
    const [zeros, ones, twos] = this.#counts
    // Mostly all filters have one QoS. No filter is left when the message is older than its UNSUBSCRIBE.
    if (qos === 0 || zeros + ones + twos === 0) return qos
    if (ones + twos === 0) return 0
    if (zeros + twos === 0) return 1
    if (zeros + ones === 0) return qos
    if (this.#found?.qos === qos && this.#found.topic === topic) return this.#found.most
    const most = this.#search(qos, topic)
    this.#found = { qos, topic, most }
    if (topic.length > MAX_KEPT_TOPIC_LENGTH) {
      queueMicrotask(() => {
        this.#found = undefined
      })
    }
    return most
  }

  #search(qos: QoS, topic: string): QoS {
    let highest: QoS | undefined
    for (const [filter, granted] of this.#granted) {
      if ((highest !== undefined && granted <= highest) || !matches(filter, topic)) continue
      if (granted >= qos) return qos
      highest = granted
    }
    return highest ?? qos
  }
}
