import { partitionOf } from '../../processor/contract/partition.ts'
import { connectivityRecord, type NewRecord } from '../../processor/contract/record.ts'
import { writeRecord } from '../../processor/contract/write.ts'
import type { Log } from '../../processor/log/log.ts'
import { loadDeviceId } from '../../simulators/load/load-connection.ts'
import { PREFIX } from './ingest.ts'

const APPENDED_AT_ONCE = 4_000
export const SITES = 500
export const TYPES = 5

/** What a device says of itself when it first comes: a message, that it is there, and what people know of it. */
export function* introduction(device: number, at: number): Iterable<NewRecord> {
  const key = loadDeviceId(PREFIX, device)
  yield telemetry(device, 1, at)
  yield connection(device, 'online', 1, at)
  const attributes = { type: `t${device % TYPES}`, site: `k${device % SITES}` }
  yield writeRecord(key, { kind: 'attributes', operation: 'replace', attributes, ifMatch: undefined }, at)
}

export function connection(device: number, state: 'online' | 'offline', session: number, at: number): NewRecord {
  const reason = state === 'online' ? 'connected' : 'connection lost'
  return connectivityRecord(loadDeviceId(PREFIX, device), { state, reason, session }, at)
}

export function telemetry(device: number, seq: number, timestamp: number): NewRecord {
  const temperature = ((device + seq) % 400) / 10
  const value = Buffer.from(`{"seq":${seq},"temperature":${temperature},"battery":${device % 100}}`)
  return { key: loadDeviceId(PREFIX, device), value, timestamp }
}

/** Appends them all; how many each partition has got. */
export async function fill(log: Log, records: Iterable<NewRecord>, partitions: number): Promise<readonly number[]> {
  const counts = Array.from({ length: partitions }, () => 0)
  let waiting: NewRecord[] = []
  for (const record of records) {
    const partition = partitionOf(record.key as string, partitions)
    counts[partition] = (counts[partition] as number) + 1
    waiting.push(record)
    if (waiting.length < APPENDED_AT_ONCE) continue
    await log.append('telemetry', waiting)
    waiting = []
  }
  if (waiting.length > 0) await log.append('telemetry', waiting)
  return counts
}
