import type { Logger } from 'pino'
import type { Offset } from '../../contract/record.ts'
import type { Cleaner } from './cleaner.ts'
import type { EmbeddedMetrics } from './embedded-log.ts'
import type { EmbeddedPartition } from './partition.ts'
import { type EmbeddedStorage, type Operation, storageKey } from './storage.ts'
import type { ClaimPosition } from './writer.ts'

export interface RetentionLimits {
  /** Milliseconds after which records are removed. */
  readonly ms: number
  /** Bytes that a partition may have; the oldest segments go first. */
  readonly bytes: number
}

/** Removes the oldest segments of a partition by age and size. The open segment and the last batch stay. */
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
   * Unprocessed records, from `processed` on, stay until the volume is full and appends fail; losing them would be
   * worse. Resolves with the bytes removed.
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
    // Readers before `to` are refused from now on, before their records are deleted.
    partition.start = to
    partition.segments = partition.segments.filter((segment) => segment.end > to || segment.bytes === 0)
    const range = { gte: storageKey('batch', topic, index, start), lt: storageKey('batch', topic, index, to) }
    await this.#storage.use((db) => db.clear(range))
    await this.#storage.write(operations)
    // Otherwise the space comes back only when RocksDB happens to compact these files.
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

/**
 * Milliseconds between two rounds: records grow old even when nothing is written. A partition whose upkeep failed is
 * left alone for as long, because a try may read all of it before it fails again.
 */
const ROUND_MS = 60_000

export interface UpkeepOptions {
  readonly retained: readonly (readonly [EmbeddedPartition, Retention])[]
  readonly cleaners: readonly (readonly [EmbeddedPartition, Cleaner])[]
  readonly positions: readonly ClaimPosition[]
  readonly faulty: () => boolean
  readonly logger: Logger
  readonly metrics: EmbeddedMetrics
  readonly now: () => number
  /** Milliseconds of a clock that nobody sets. */
  readonly monotonic: () => number
}

/** Keeps the log within its bounds by retention and compaction, one partition after the other. */
export class EmbeddedUpkeep {
  readonly #options: UpkeepOptions
  #wake = Promise.withResolvers<void>()
  #round: Promise<void> = Promise.resolve()
  /** Times at which failed partitions are tried again, on the clock of `monotonic`. */
  readonly #failing = new Map<EmbeddedPartition, number>()

  constructor(options: UpkeepOptions) {
    this.#options = options
  }

  wake(): void {
    this.#wake.resolve()
  }

  async run(signal: AbortSignal): Promise<void> {
    const wake = () => this.wake()
    const timer = setInterval(wake, ROUND_MS).unref()
    signal.addEventListener('abort', wake, { once: true })
    while (!signal.aborted) {
      await this.#wake.promise
      this.#wake = Promise.withResolvers()
      if (signal.aborted || this.#options.faulty()) continue
      // The round has logged the error.
      await this.round(signal).catch(() => undefined)
    }
    clearInterval(timer)
    await this.#round
  }

  /**
   * Runs one round after the current one. `all` compacts partitions that are not due, too. Rejects when the upkeep of a
   * partition failed.
   */
  round(signal: AbortSignal, all = false): Promise<void> {
    const round = this.#round.then(() => this.#tend(signal, all))
    this.#round = round.catch(() => undefined)
    return round
  }

  async #tend(signal: AbortSignal, all: boolean): Promise<void> {
    const { retained, cleaners, faulty } = this.#options
    const works = [
      ...retained.map(([partition, retention]) => [partition, () => this.#retain(partition, retention)] as const),
      ...cleaners.map(
        ([partition, cleaner]) => [partition, () => this.#clean(partition, cleaner, signal, all)] as const,
      ),
    ]
    const failures: unknown[] = []
    for (const [partition, work] of works) {
      // When the writer has a fault it recovers the log, and the next round goes on where this one stopped.
      if (signal.aborted || (failures.length > 0 && faulty())) break
      try {
        await this.#attempt(partition, work, all)
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  /** A failure of one partition must not let the others fill the volume. */
  async #attempt(partition: EmbeddedPartition, work: () => Promise<void>, all: boolean): Promise<void> {
    const { logger, monotonic } = this.#options
    const { topic, index } = partition
    const until = this.#failing.get(partition)
    if (until !== undefined && monotonic() < until && !all) return
    try {
      await work()
      if (this.#failing.delete(partition))
        logger.info({ topic, partition: index }, 'upkeep of the partition works again')
    } catch (error) {
      this.#failing.set(partition, monotonic() + ROUND_MS)
      const then = 'until it works again the partition grows'
      if (until === undefined) logger.error({ topic, partition: index, err: error }, `upkeep failed: ${then}`)
      throw error
    }
  }

  async #retain(partition: EmbeddedPartition, retention: Retention): Promise<void> {
    const { positions, metrics, now } = this.#options
    const { topic, index, end } = partition
    const processed = topic === 'telemetry' ? (positions[index] as ClaimPosition).input : end
    const bytes = await retention.apply(processed, now())
    if (bytes > 0) metrics.retained.inc({ topic }, bytes)
  }

  async #clean(partition: EmbeddedPartition, cleaner: Cleaner, signal: AbortSignal, all: boolean): Promise<void> {
    const { metrics, logger } = this.#options
    const wanted = () => all || cleaner.due
    // The number of keys may bound a pass; then another one follows.
    while (!signal.aborted && wanted()) {
      const won = await cleaner.clean(signal)
      if (won === undefined) return
      metrics.cleaned.inc(Math.max(0, won))
      logger.debug({ topic: partition.topic, partition: partition.index, won }, 'partition compacted')
    }
  }
}
