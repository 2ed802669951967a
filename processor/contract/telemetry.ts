import { HEADER_KIND, type NewRecord } from './record.ts'
import type { ConnectivityReason, ConnectivityState } from './status.ts'

/**
 * The telemetry topic carries records keyed by device id and stamped with the time of receipt.
 * A message keeps the bytes the device sent as its value, so that a foreign reader of the topic sees the device's own
 * JSON; the header `metric` names the metric of a single-value topic, and `will` the session whose last will it is.
 * Any other record has the header `kind`: `connectivity`, with the JSON of a `Connection` as its value; `attributes` and
 * `deletion`, which write.ts describes.
 */
export const HEADER_METRIC = 'metric'
export const HEADER_WILL = 'will'
export const KIND_CONNECTIVITY = 'connectivity'

export const MAX_PAYLOAD_BYTES = 256 * 1024
const DEVICE_ID = /^[A-Za-z0-9._:-]{1,128}$/

export function isDeviceId(text: string): boolean {
  return DEVICE_ID.test(text)
}

/** One end of a session: what `connectivity` becomes. */
export interface Connection {
  readonly state: ConnectivityState
  readonly reason: ConnectivityReason
  readonly session: number
}

export function connectivityRecord(deviceId: string, connection: Connection, timestamp: number): NewRecord {
  return {
    key: deviceId,
    value: Buffer.from(JSON.stringify(connection)),
    timestamp,
    headers: { [HEADER_KIND]: KIND_CONNECTIVITY },
  }
}
