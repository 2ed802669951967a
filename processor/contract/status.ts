import { MAX_ATTRIBUTES_DEPTH } from './attributes.ts'
import { beginsWith, isDeeper, isObject, type Json, type JsonObject, MAX_DEPTH, viewOf } from './json.ts'

/** One metric: its newest value and the event time (ISO 8601, ms, UTC) at which it held. */
interface Metric {
  value: Json
  at: string
}

export const CONNECTIVITY_REASONS = [
  'connected',
  'client disconnect',
  'keepalive timeout',
  'connection lost',
  'taken over',
  'server shutdown',
  'no session seen',
] as const
export type ConnectivityReason = (typeof CONNECTIVITY_REASONS)[number]

/** `unknown`: no session was seen yet, or the broker went away and the device has not returned since. */
export type ConnectivityState = 'online' | 'offline' | 'unknown'

interface Connectivity {
  state: ConnectivityState
  /** ISO 8601 time of the last change of state. */
  since: string
  reason: ConnectivityReason
  /** Epoch of the MQTT session this state comes from, growing; 0 when none was seen. An older one never overrides it. */
  session: number
}

/** Which sequence numbers of the device were applied; present once the device sends `seq`. */
export interface Sequence {
  /** Ascending, disjoint, inclusive ranges; at most `MAX_SEQUENCE_RANGES`, the lowest is forgotten first. */
  seen: [number, number][]
  /** The connectivity session in which `seen` was last extended. */
  session: number
  /** Newest event time among the numbered messages that carried a valid `ts`; absent when none did. */
  at?: string
}

export interface Counters {
  /** Messages applied; each element of an array payload is one. */
  messages: number
  /** Of these, messages with at least one value older than the one stored. */
  late: number
  /** Messages left out because their `seq` had been applied. */
  duplicates: number
  /** Of `messages`, those whose `ts` was unusable, so that the time of receipt stood in. */
  skewed: number
}

/** The last status of a device: the value of the changelog, of the store, and of the HTTP answer. */
export interface Status {
  deviceId: string
  /** Grows by one with every record that changes more than `counters.duplicates`. */
  rev: number
  reported: Record<string, Metric>
  connectivity: Connectivity
  /** ISO 8601 receipt time of the first and of the newest telemetry message. */
  firstSeenAt: string
  lastSeenAt: string
  counters: Counters
  sequence?: Sequence
  /** What people say of the device, through the API. Absent when there is nothing. */
  attributes?: JsonObject
}

export const MAX_SEQUENCE_RANGES = 16

/**
 * Bytes of the JSON of one status at a commit, so that encoding takes a short pause and the record stays well under
 * Kafka's 1 MiB. Within a batch it may have more.
 */
export const MAX_STATUS_BYTES = 512 * 1024

/** Throws SyntaxError. A foreign program may have written any JSON: see `isStatus`. */
export function decodeStatus(bytes: Uint8Array): Status {
  return JSON.parse(viewOf(bytes).toString()) as Status
}

const CLOSE_OBJECT = 0x7d

/**
 * The bytes by which everyone shows, searches, counts and indexes a stored record, so that all agree: the record itself
 * when it is an object of the device, else an object with the device's id alone.
 */
export function readableStatus(stored: Uint8Array, deviceId: string): Uint8Array {
  return isOfDevice(stored, deviceId) ? stored : Buffer.from(JSON.stringify({ deviceId }))
}

/** Whether `readableStatus` returned the id alone. No other object of the device is as short. */
export function isBare({ byteLength }: Uint8Array, deviceId: string): boolean {
  return byteLength === BARE_BYTES + deviceId.length
}

const BARE_BYTES = '{"deviceId":""}'.length

/**
 * Bytes that begin and end as `HeldStatus.text` writes are taken for JSON unread: reading them would take longer than to
 * pick fields out of them, for each device of a scan.
 */
function isOfDevice(bytes: Uint8Array, deviceId: string): boolean {
  // The last member is always an object.
  const isEnded = bytes[bytes.length - 1] === CLOSE_OBJECT && bytes[bytes.length - 2] === CLOSE_OBJECT
  if (isEnded && beginsWith(bytes, '{"deviceId":"' + deviceId + '","rev":')) return true
  try {
    const json = decodeStatus(bytes) as unknown as Json
    return isObject(json) && json.deviceId === deviceId
  } catch (error) {
    if (error instanceof SyntaxError) return false
    throw error
  }
}

/** Whether the decoded JSON has all that a fold relies on. */
export function isStatus(decoded: Status, deviceId: string): boolean {
  const json = decoded as unknown as Json
  if (!isObject(json) || json.deviceId !== deviceId || !Number.isSafeInteger(json.rev)) return false
  const { reported, connectivity, counters, sequence, attributes } = json
  if (!isObject(reported) || !isObject(connectivity) || !isObject(counters)) return false
  for (const name in reported) {
    const metric = reported[name]
    if (!isObject(metric) || typeof metric.at !== 'string' || metric.value === undefined) return false
    if (isDeeper(metric.value, MAX_DEPTH)) return false
  }
  for (const name of COUNTERS) if (!Number.isSafeInteger(counters[name])) return false
  if (!Number.isSafeInteger(connectivity.session)) return false
  const texts = [connectivity.state, connectivity.since, connectivity.reason, json.firstSeenAt, json.lastSeenAt]
  if (!texts.every((text) => typeof text === 'string')) return false
  if (attributes !== undefined && (!isObject(attributes) || isDeeper(attributes, MAX_ATTRIBUTES_DEPTH))) return false
  return sequence === undefined || isSequence(sequence)
}

export const COUNTERS = ['messages', 'late', 'duplicates', 'skewed'] as const

function isSequence(json: Json): boolean {
  if (!isObject(json) || !Array.isArray(json.seen) || !Number.isSafeInteger(json.session)) return false
  if (json.at !== undefined && typeof json.at !== 'string') return false
  return json.seen.every((range) => Array.isArray(range) && range.length === 2 && range.every(Number.isSafeInteger))
}

export const STATES = ['online', 'offline', 'unknown'] as const
