import type { ProcessorLimits } from './limits.ts'

/**
 * While its batches are small a partition gathers records for so many times as long as a batch took it. A commit of few records
 * costs the log as much as one of many: without a pause, commits alone filled two cores at 2,000 records a second.
 */
const GATHER = 8

/** How long a partition waits, ms, after a batch of `records` that took `tookMs`, before it takes what has come meanwhile. */
export function restAfter(
  { records, tookMs }: { readonly records: number; readonly tookMs: number },
  limits: Pick<ProcessorLimits, 'batchRecords' | 'minCommitIntervalMs' | 'maxCommitIntervalMs'>,
): number {
  if (records >= limits.batchRecords / 2) return 0
  const interval = Math.min(Math.max(limits.minCommitIntervalMs, GATHER * tookMs), limits.maxCommitIntervalMs)
  return Math.max(0, interval - tookMs)
}
