import type { Log, NewRecord } from '../../../processor/log/log.ts'
import { loadDeviceId, loadTemperature, SEQ_START } from '../../../simulators/load/load-packet.ts'
import { PREFIX } from '../ingest.ts'

/** Records of one append, and appends under way. */
const CHUNK = 2_000
const UNDER_WAY = 8
/** A prime far from any number of devices: each round meets every device once, in an order that no cache likes. */
const STRIDE = 7_919

export interface Fleet {
  readonly devices: number
  readonly prefix?: string
}

/** The record that is number `i` of a load over a fleet: the same JSON that the MQTT load generator sends. */
export function loadRecord(i: number, { devices, prefix = PREFIX }: Fleet, timestamp: number): NewRecord {
  const device = (i * STRIDE) % devices
  const seq = SEQ_START + Math.floor(i / devices)
  const temperature = loadTemperature(device, seq).toFixed(3)
  const value = Buffer.from(
    `{"ts":${timestamp},"seq":${seq},"values":{"temperature":${temperature},` +
      `"humidity":45.2,"pressure":1013.2,"battery":87,"rssi":-61}}`,
    'latin1',
  )
  return { key: loadDeviceId(prefix, device), value, timestamp, headers: undefined }
}

/** Appends the first `count` records of a load to the telemetry topic. */
export async function fill(log: Log, count: number, fleet: Fleet): Promise<void> {
  let next = 0
  const lane = async (): Promise<void> => {
    while (next < count) {
      const from = next
      next = Math.min(count, from + CHUNK)
      const now = Date.now()
      await log.append(
        'telemetry',
        Array.from({ length: next - from }, (_, i) => loadRecord(from + i, fleet, now)),
      )
    }
  }
  // One call after the other keeps the order of a device; several under way keep Kafka busy.
  await Promise.all(Array.from({ length: UNDER_WAY }, lane))
}
