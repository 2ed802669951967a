import { isDeviceId, type RejectionReason } from '../../processor/contract/telemetry.ts'

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
