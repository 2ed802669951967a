import { join } from 'node:path'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { EmbeddedLog } from '../../processor/log/embedded/embedded-log.ts'
import type { Log } from '../../processor/log/log.ts'
import { decodeRecord } from '../../processor/status/decode.ts'

const LIMITS = { maxRecords: 1_000, maxBytes: 1024 * 1024 }

/** Messages that the log in this data folder holds, by device. No process may have the folder. */
export async function messagesInLog(dataDir: string, partitions: number): Promise<Map<string, number>> {
  await using log = await EmbeddedLog.open({
    folder: join(dataDir, 'log'),
    partitions,
    logger: pino({ level: 'silent' }),
    registry: new Registry(),
  })
  return await messagesOf(log)
}

/** Messages that the log holds, by device. */
export async function messagesOf(log: Log): Promise<Map<string, number>> {
  const counts = new Map<string, number>()
  for (let index = 0; index < log.identity.partitions; index++) {
    const partition = { topic: 'telemetry', index } as const
    const { start, end } = await log.bounds(partition)
    if (start === end) continue
    const found = new AbortController()
    for await (const { records, next } of log.follow(partition, start, LIMITS, found.signal)) {
      for (const record of records) {
        const key = record.key as string
        if (decodeRecord(record).kind === 'readings') counts.set(key, (counts.get(key) ?? 0) + 1)
      }
      if (next >= end) found.abort()
    }
  }
  return counts
}
