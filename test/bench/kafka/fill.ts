import type { Log, NewRecord } from '../../../processor/log/log.ts'
import { loadDeviceId, loadTemperature, SEQ_START } from '../../../simulators/load/load-connection.ts'
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

/** The first `count` records of the load: every device in turn, the order that a cache likes least. */
export function* loadRecords(count: number, fleet: Fleet): Generator<NewRecord> {
  const now = Date.now()
  for (let i = 0; i < count; i++) yield loadRecord(i, fleet, now)
}

/** Appends `records` to the telemetry topic, in order. */
export async function fill(log: Log, records: Iterator<NewRecord>): Promise<void> {
  const lane = async (): Promise<void> => {
    for (;;) {
      const chunk: NewRecord[] = []
      while (chunk.length < CHUNK) {
        const { done, value } = records.next()
        if (done === true) break
        chunk.push(value)
      }
      if (chunk.length === 0) return
      await log.append('telemetry', chunk)
    }
  }
  // One call after the other keeps the order of a device; several under way keep Kafka busy.
  await Promise.all(Array.from({ length: UNDER_WAY }, lane))
}
