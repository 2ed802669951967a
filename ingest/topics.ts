import { isDeviceId, type RejectionReason } from '../processor/contract/telemetry.ts'

const TREE = 'devices/'
const LEVEL = 'telemetry'

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
const BAD_DEVICE_ID: Route = { deviceId: undefined, metric: undefined, reason: 'bad-device-id' }

/** The grammar: `devices/{deviceId}/telemetry` and `devices/{deviceId}/telemetry/{metric}`, the metric one level. */
export function routeOf(topic: string): Route {
  if (!inTelemetryTree(topic)) return BAD_TOPIC
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

/**
 * Ill-formed UTF-8 was decoded to U+FFFD, and U+0000 must not be there: the receiver must close the connection
 * [MQTT-1.5.3-1, MQTT-1.5.3-2]. A topic that really contains U+FFFD is refused with them.
 */
export function isIllFormed(topic: string): boolean {
  return topic.includes('\u0000') || topic.includes('\ufffd')
}
