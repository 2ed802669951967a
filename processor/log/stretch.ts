import type { Batch, BatchLimits, Log, Offset, Partition } from './log.ts'

/**
 * What is committed from `from` on, until `to` is reached, which must not be past the end: nothing is waited for there. The
 * last batch may go further. Rejects as `follow` does, and with the reason of `signal` when that aborts.
 */
export async function* stretch(
  log: Pick<Log, 'follow'>,
  partition: Partition,
  from: Offset,
  to: Offset,
  limits: BatchLimits,
  signal: AbortSignal,
): AsyncGenerator<Batch> {
  if (from >= to) return
  for await (const batch of log.follow(partition, from, limits, signal)) {
    yield batch
    if (batch.next >= to) return
  }
  signal.throwIfAborted()
}
