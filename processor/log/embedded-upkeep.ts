import type { Logger } from 'pino'
import type { Cleaner } from './cleaner.ts'
import type { EmbeddedMetrics } from './embedded-metrics.ts'
import type { EmbeddedPartition } from './embedded-partition.ts'
import type { Position } from './embedded-writer.ts'
import type { Retention } from './retention.ts'

/** Records also grow old when nothing is written: retention looks this often, ms. */
const ROUND_MS = 60_000

export interface UpkeepOptions {
  readonly retained: readonly (readonly [EmbeddedPartition, Retention])[]
  readonly cleaners: readonly (readonly [EmbeddedPartition, Cleaner])[]
  readonly positions: readonly Position[]
  readonly faulty: () => boolean
  readonly logger: Logger
  readonly metrics: EmbeddedMetrics
  readonly now: () => number
}

/** Keeps the log within its bounds: retention and compaction, one partition after the other. */
export class EmbeddedUpkeep {
  readonly #options: UpkeepOptions
  #wake = Promise.withResolvers<void>()
  #round: Promise<void> = Promise.resolve()

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
      await this.round(signal).catch((error: unknown) => {
        // The writer meets the same fault, and mends it; the next round goes on where this one stopped.
        if (!signal.aborted) this.#options.logger.warn({ err: error }, 'upkeep of the log failed; it is tried again')
      })
    }
    clearInterval(timer)
    await this.#round
  }

  /** One round, after the one that runs. `all`: compacts what is not yet due, too. */
  round(signal: AbortSignal, all = false): Promise<void> {
    const round = this.#round.then(() => this.#tend(signal, all))
    this.#round = round.catch(() => undefined)
    return round
  }

  async #tend(signal: AbortSignal, all: boolean): Promise<void> {
    const { retained, cleaners, positions, metrics, now } = this.#options
    for (const [partition, retention] of retained) {
      if (signal.aborted) return
      const { topic, index, end } = partition
      const processed = topic === 'telemetry' ? (positions[index] as Position).input : end
      const bytes = await retention.apply(processed, now())
      if (bytes > 0) metrics.retained.inc({ topic }, bytes)
    }
    for (const [partition, cleaner] of cleaners) {
      let won: number | undefined = 0
      // A pass may be bounded by its keys; then another one follows.
      const wanted = () => all || cleaner.due
      while (!signal.aborted && won !== undefined && wanted()) {
        won = await cleaner.clean(signal)
        if (won === undefined) break
        metrics.cleaned.inc(Math.max(0, won))
        this.#options.logger.debug({ topic: partition.topic, partition: partition.index, won }, 'partition compacted')
      }
    }
  }
}
