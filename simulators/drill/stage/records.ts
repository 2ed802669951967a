import type { Log, LogRecord, Topic } from '../../../processor/log/log.ts'

const LIMITS = { maxRecords: 2_000, maxBytes: 4 * 1024 * 1024 }

/** Gives all records of a partition; resolves with the offset after the last one. */
export async function readRecords(
  log: Log,
  topic: Topic,
  index: number,
  take: (record: LogRecord) => void,
): Promise<number> {
  const { start, end } = await log.bounds({ topic, index })
  if (start === end) return end
  const read = new AbortController()
  for await (const { records, next } of log.follow({ topic, index }, start, LIMITS, read.signal)) {
    for (const record of records) take(record)
    if (next >= end) read.abort()
  }
  return end
}

/** Dead letters of the drill's devices. */
export async function deadLettersOf(log: Log, prefix: string): Promise<number> {
  let count = 0
  const take = ({ key }: LogRecord): void => {
    if (key?.startsWith(`${prefix}-`) === true) count++
  }
  for (let index = 0; index < log.identity.partitions; index++) await readRecords(log, 'dead-letters', index, take)
  return count
}
