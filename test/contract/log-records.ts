import { partitionOf } from '../../processor/contract/partition.ts'
import type { Log, LogRecord, NewRecord, Topic } from '../../processor/log/log.ts'

export const LIMITS = { maxRecords: 500, maxBytes: 1 << 20 }

/** Of today, lest Kafka's own retention, which looks now and then, removes what a test has just appended. */
const NOW = Date.now()

export function bytes(value: string): Buffer {
  return Buffer.from(value)
}

export function record(key: string, value: string): NewRecord {
  return { key, value: bytes(value), timestamp: NOW }
}

export function numbered(from: number, count: number): NewRecord[] {
  return Array.from({ length: count }, (_, i) => record(`device-${from + i}`, `${from + i}`))
}

export function sized(key: string, size: number): NewRecord {
  return { key, value: Buffer.alloc(size, 'x'), timestamp: 1 }
}

export function text(r: NewRecord): string {
  return Buffer.from(r.value ?? []).toString()
}

export function plain(r: NewRecord): object {
  const headers = r.headers === undefined || Object.keys(r.headers).length === 0 ? {} : { ...r.headers }
  return { key: r.key, value: r.value === null ? null : [...r.value], timestamp: r.timestamp, headers }
}

export function byText(a: object, b: object): number {
  return JSON.stringify(a) < JSON.stringify(b) ? -1 : 1
}

export function byKey(records: readonly NewRecord[]): Record<string, string[]> {
  const keys: Record<string, string[]> = {}
  for (const r of records) (keys[r.key ?? ''] ??= []).push(text(r))
  return keys
}

/** A key that lives in partition `index`. */
export function keyIn(index: number, partitions: number): string {
  let key = 0
  while (partitionOf(`${key}`, partitions) !== index) key++
  return `${key}`
}

/** Follows all partitions of a topic until `enough` records are there, and gives those. */
export async function collect(log: Log, topic: Topic, partitions: number, enough: number): Promise<LogRecord[]> {
  const records: LogRecord[] = []
  const stop = new AbortController()
  const follow = async (index: number) => {
    for await (const batch of log.follow({ topic, index }, 0, LIMITS, stop.signal)) {
      records.push(...batch.records)
      if (records.length >= enough) stop.abort()
    }
  }
  await Promise.all(Array.from({ length: partitions }, (_, index) => follow(index)))
  return records
}
