import type { Logger } from 'pino'
import type { Offset } from '../../contract/record.ts'
import { storedEnd } from './partition.ts'
import { type Database, type Operation, offsetOfKey, storageKey, storageRange } from './storage.ts'

/**
 * Retention of earlier versions could remove the last batch of a partition, which then began at 0 again when the log was
 * opened, below what was processed, where nobody reads. What was appended since goes behind that, in its order.
 */
export async function renumber(db: Database, index: number, processed: Offset, logger: Logger): Promise<void> {
  const batches = storageRange('batch', 'telemetry', index)
  const end = await storedEnd(db, 'telemetry', index)
  if (end === undefined || end >= processed) return
  // One write, since half a move could not be told from a whole one. It is little: the process ended at each start.
  const operations: Operation[] = []
  for await (const [key, value] of db.iterator(batches)) {
    const moved = storageKey('batch', 'telemetry', index, processed + offsetOfKey(key))
    operations.push({ type: 'del', key }, { type: 'put', key: moved, value })
  }
  for await (const key of db.keys(storageRange('segment', 'telemetry', index))) operations.push({ type: 'del', key })
  await db.batch(operations)
  logger.warn(
    { partition: index, processed, end },
    'telemetry had begun again at 0: it goes on after what was processed',
  )
}
