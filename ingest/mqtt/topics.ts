import type { Subscription } from 'aedes'
import type { RejectionReason } from '../../processor/contract/dead-letter.ts'
import { isDeviceId } from '../../processor/contract/telemetry.ts'

const TREE = 'devices/'
const LEVEL = 'telemetry'
/** Levels of a topic, and of a filter; qlobber, which aedes routes with, has no more. */
const MAX_LEVELS = 100

/** To the telemetry of a device. */
export interface DeviceRoute {
  readonly deviceId: string
  readonly metric: string | undefined
  readonly reason: undefined
}

/** Among the dead letters; of a device, where the topic names one. */
export interface LetterRoute {
  readonly deviceId: string | undefined
  readonly metric: string | undefined
  readonly reason: RejectionReason
}

/** Where a publish belongs. `metric`: the single-value form, which names its metric in the topic. */
export type Route = DeviceRoute | LetterRoute

const BAD_TOPIC: Route = { deviceId: undefined, metric: undefined, reason: 'bad-topic' }
const RESERVED_TOPIC: Route = { deviceId: undefined, metric: undefined, reason: 'reserved-topic' }
const BAD_DEVICE_ID: Route = { deviceId: undefined, metric: undefined, reason: 'bad-device-id' }

/** The grammar: `devices/{deviceId}/telemetry` and `devices/{deviceId}/telemetry/{metric}`, the metric one level. */
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

/** The topic's first levels are `devices/{anything}/telemetry`. */
export function inTelemetryTree(topic: string): boolean {
  if (!topic.startsWith(TREE)) return false
  const end = topic.indexOf('/', TREE.length)
  if (end === -1 || !topic.startsWith(LEVEL, end + 1)) return false
  const after = end + 1 + LEVEL.length
  return topic.length === after || topic.charCodeAt(after) === 0x2f
}

/** The broker's own: clients are not to exchange messages there [MQTT-4.7.2-1]. */
export function isReserved(name: string): boolean {
  return name.startsWith('$')
}

/**
 * Whether a subscription's filter may match a topic of the telemetry tree; true when in doubt. While no such filter
 * is subscribed, forwarding a telemetry message can reach nobody.
 */
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

/** Of more levels than the broker can route: it can neither be subscribed to nor forwarded. */
export function isTooDeep(name: string): boolean {
  let levels = 1
  for (let at = name.indexOf('/'); at !== -1 && levels <= MAX_LEVELS; at = name.indexOf('/', at + 1)) levels++
  return levels > MAX_LEVELS
}

/**
 * Ill-formed UTF-8 was decoded to U+FFFD, and U+0000 must not be there: the receiver must close the connection
 * [MQTT-1.5.3-1, MQTT-1.5.3-2]. A text that really contains U+FFFD is refused with them.
 */
export function isIllFormed(text: string): boolean {
  return text.includes('\u0000') || text.includes('\ufffd')
}

export type QoS = Subscription['qos']

/**
 * UTF-16 code units of a topic that is kept, as many as a filter may have; a topic may have 65,535, and there are up to
 * 20,000 sessions. A longer one is kept for the turn.
 */
const MAX_KEPT_TOPIC_LENGTH = 512

/** The topic filters of a session, and the QoS granted to each. */
export class Filters {
  readonly #granted = new Map<string, QoS>()
  /** How many have each QoS. */
  readonly #counts: [number, number, number] = [0, 0, 0]
  /** What was searched for last, and found: of a message the broker asks once for each filter that it matches. */
  #found: { readonly qos: QoS; readonly topic: string; readonly most: QoS } | undefined

  get size(): number {
    return this.#granted.size
  }

  has(filter: string): boolean {
    return this.#granted.has(filter)
  }

  set(filter: string, qos: QoS): void {
    this.delete(filter)
    this.#granted.set(filter, qos)
    this.#counts[qos]++
    this.#found = undefined
  }

  delete(filter: string): void {
    const qos = this.#granted.get(filter)
    if (qos === undefined) return
    this.#granted.delete(filter)
    this.#counts[qos]--
    this.#found = undefined
  }

  /** The QoS at which a message that was published at `qos` is delivered [MQTT-3.3.5-1, MQTT-3.8.4-6]. */
  atMost(qos: QoS, topic: string): QoS {
    const [zeros, ones, twos] = this.#counts
    // Nearly always all are alike. A message may be older than the UNSUBSCRIBE of its filter: then none matches.
    if (qos === 0 || zeros + ones + twos === 0) return qos
    if (ones + twos === 0) return 0
    if (zeros + twos === 0) return 1
    if (zeros + ones === 0) return qos
    if (this.#found?.qos === qos && this.#found.topic === topic) return this.#found.most
    const most = this.#search(qos, topic)
    this.#found = { qos, topic, most }
    // All filters that a message matches ask within one turn; 500 of 1,000 would search for half a second.
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
