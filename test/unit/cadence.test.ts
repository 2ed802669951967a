import { expect, it } from 'vitest'
import { restAfter } from '../../processor/cadence.ts'

const LIMITS = { batchRecords: 2000, minCommitIntervalMs: 10 }

it.each([
  { records: 1, tookMs: 1, maxGatherMs: 100, rest: 9 },
  { records: 1, tookMs: 5, maxGatherMs: 100, rest: 35 },
  { records: 999, tookMs: 12, maxGatherMs: 100, rest: 84 },
  { records: 1, tookMs: 60, maxGatherMs: 100, rest: 40 },
  { records: 1, tookMs: 5000, maxGatherMs: 100, rest: 0 },
  { records: 1000, tookMs: 12, maxGatherMs: 100, rest: 0 },
  { records: 1, tookMs: 5, maxGatherMs: 0, rest: 5 },
])(
  'after $records records in $tookMs ms a partition rests for $rest ms, $maxGatherMs at most',
  ({ rest, ...batch }) => {
    expect(restAfter(batch, LIMITS)).toBe(rest)
  },
)
