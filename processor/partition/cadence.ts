import type { ProcessorLimits } from '../limits.ts'
import type { Batch } from '../log/log.ts'

/**
 * While its batches are small a partition gathers records for so many times as long as a batch took it. A commit of few records
 * may cost the log as much as one of many: without a pause, those on Kafka filled two cores at 2,000 records a second.
 */
const GATHER = 8

/**
 * How long a partition waits, ms, after a batch that took `tookMs`, before it takes what has come meanwhile: not at all
 * while more records wait than the batch had. `maxGatherMs`: of the log.
 */
export function restAfter(
  { records, next, end }: Batch,
  { tookMs, maxGatherMs }: { readonly tookMs: number; readonly maxGatherMs: number },
  limits: Pick<ProcessorLimits, 'batchRecords' | 'minCommitIntervalMs'>,
): number {
  if (records.length >= limits.batchRecords / 2 || end - next > records.length) return 0
  const interval = Math.max(limits.minCommitIntervalMs, Math.min(GATHER * tookMs, maxGatherMs))
  return Math.max(0, interval - tookMs)
}
