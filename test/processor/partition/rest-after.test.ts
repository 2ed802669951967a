import { expect, it } from 'vitest'
import type { LogRecord } from '../../../processor/log/log.ts'
import { restAfter } from '../../../processor/partition/task.ts'

const LIMITS = { batchRecords: 2000, minCommitIntervalMs: 10 }
const RECORD: LogRecord = { key: 'd1', value: null, offset: 0, timestamp: 0 }

it.each([
  { count: 0, waiting: 0, tookMs: 1, maxGatherMs: 100, rest: 9 },
  { count: 1, waiting: 0, tookMs: 1, maxGatherMs: 100, rest: 9 },
  { count: 1, waiting: 0, tookMs: 5, maxGatherMs: 100, rest: 35 },
  { count: 999, waiting: 0, tookMs: 12, maxGatherMs: 100, rest: 84 },
  { count: 1, waiting: 0, tookMs: 60, maxGatherMs: 100, rest: 40 },
  { count: 1, waiting: 0, tookMs: 5000, maxGatherMs: 100, rest: 0 },
  { count: 1000, waiting: 0, tookMs: 12, maxGatherMs: 100, rest: 0 },
  { count: 1, waiting: 0, tookMs: 5, maxGatherMs: 0, rest: 5 },
  { count: 10, waiting: 10, tookMs: 1, maxGatherMs: 100, rest: 9 },
  { count: 10, waiting: 11, tookMs: 1, maxGatherMs: 100, rest: 0 },
])(
  'after $count records in $tookMs ms a partition rests for $rest ms, $maxGatherMs at most, while $waiting wait',
  ({ count, waiting, rest, ...times }) => {
    const batch = { records: Array.from({ length: count }, () => RECORD), next: count, end: count + waiting }
    expect(restAfter(batch, times, LIMITS)).toBe(rest)
  },
)
