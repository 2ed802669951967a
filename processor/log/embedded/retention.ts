import type { Logger } from 'pino'
import type { Offset } from '../../contract/record.ts'
import type { EmbeddedPartition } from './partition.ts'
import { type EmbeddedStorage, type Operation, storageKey } from './storage.ts'

export interface RetentionLimits {
  /** Records older than this go, ms. */
  readonly ms: number
  /** Bytes a partition may have; the oldest go. */
  readonly bytes: number
}

/** Removes the oldest segments of a partition by age and size. The segment that is being written stays, and the last batch. */
export class Retention {
  readonly #storage: EmbeddedStorage
  readonly #partition: EmbeddedPartition
  readonly #limits: RetentionLimits
  readonly #logger: Logger
  #exceeded = false

  constructor(storage: EmbeddedStorage, partition: EmbeddedPartition, limits: RetentionLimits, logger: Logger) {
    this.#storage = storage
    this.#partition = partition
    this.#limits = limits
    this.#logger = logger
  }

  /**
   * Never goes beyond `processed`: what has not been processed stays, whatever it takes, until the volume is full and
   * appends fail; losing it would be worse. Resolves with the bytes removed.
   */
  async apply(processed: Offset, now: number): Promise<number> {
    const partition = this.#partition
    let left = partition.bytes
    let removed = 0
    let to = partition.start
    const operations: Operation[] = []
    const due: boolean[] = []
    for (const segment of partition.segments.slice(0, -1)) {
      // The end of the partition is read from its last batch when the log is opened.
      if (segment.end >= partition.end) break
      if (segment.newest >= now - this.#limits.ms && left <= this.#limits.bytes) break
      due.push(segment.end <= processed)
      if (segment.end > processed) break
      left -= segment.bytes
      removed += segment.bytes
      to = segment.end
      operations.push({ type: 'del', key: storageKey('segment', partition.topic, partition.index, segment.base) })
    }
    this.#note(due.includes(false), left)
    if (operations.length === 0) return 0

    const { topic, index, start } = partition
    // Readers below are refused from here on, before their records begin to go.
    partition.start = to
    partition.segments = partition.segments.filter((segment) => segment.end > to || segment.bytes === 0)
    const range = { gte: storageKey('batch', topic, index, start), lt: storageKey('batch', topic, index, to) }
    await this.#storage.use((db) => db.clear(range))
    await this.#storage.write(operations)
    // Without it the space comes back only when RocksDB happens to compact these files.
    await this.#storage.use((db) => db.compactRange(range.gte, range.lt))
    return removed
  }

  #note(exceeded: boolean, bytes: number): void {
    if (exceeded === this.#exceeded) return
    this.#exceeded = exceeded
    const { topic, index } = this.#partition
    const fields = { topic, partition: index, bytes, limit: this.#limits.bytes }
    if (exceeded) this.#logger.warn(fields, 'records past their retention are kept: they are not processed yet')
    else this.#logger.info(fields, 'retention is kept again')
  }
}
