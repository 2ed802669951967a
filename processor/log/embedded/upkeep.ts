import type { Logger } from 'pino'
import type { Cleaner } from './cleaner.ts'
import type { EmbeddedMetrics } from './metrics.ts'
import type { EmbeddedPartition } from './partition.ts'
import type { Retention } from './retention.ts'
import type { ClaimPosition } from './writer.ts'

/**
 * Records also grow old when nothing is written: retention looks this often, ms. And a partition whose upkeep failed is left
 * alone for so long: it may have to be read whole until it fails again.
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
  /** ms. */
  readonly monotonic: () => number
}

/** Keeps the log within its bounds: retention and compaction, one partition after the other. */
export class EmbeddedUpkeep {
  readonly #options: UpkeepOptions
  #wake = Promise.withResolvers<void>()
  #round: Promise<void> = Promise.resolve()
  /** Partitions whose upkeep failed, and when it is tried again, on the clock of `monotonic`. */
  readonly #failing = new Map<EmbeddedPartition, number>()

  constructor(options: UpkeepOptions) {
    this.#options = options
  }

  /** Something may be due. */
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
      // The log has been told of it.
      await this.round(signal).catch(() => undefined)
    }
    clearInterval(timer)
    await this.#round
  }

  /** One round, after the one that runs. `all`: compacts what is not yet due, too. Rejects when a partition's upkeep failed. */
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
      // The writer mends what it meets; the next round goes on where this one stopped.
      if (signal.aborted || (failures.length > 0 && faulty())) break
      try {
        await this.#attempt(partition, work, all)
      } catch (error) {
        failures.push(error)
      }
    }
    if (failures.length > 0) throw failures[0]
  }

  /** What is wrong with one partition is not to fill the volume with the others. */
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
    // A pass may be bounded by its keys; then another one follows.
    while (!signal.aborted && wanted()) {
      const won = await cleaner.clean(signal)
      if (won === undefined) return
      metrics.cleaned.inc(Math.max(0, won))
      logger.debug({ topic: partition.topic, partition: partition.index, won }, 'partition compacted')
    }
  }
}
