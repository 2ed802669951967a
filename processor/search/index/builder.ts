import type { Logger } from 'pino'
import { StoreCorruptedError } from '../../contract/errors.ts'
import type { RestorePriority } from '../../runtime/limiter.ts'
import type { Turns } from '../../runtime/turns.ts'
import { INDEX_VERSION } from '../../store/index-entries.ts'
import type { LevelStore } from '../../store/level-store.ts'

export interface IndexBuilderOptions {
  readonly restorePriority: RestorePriority
  readonly turns: Turns
  readonly logger: Logger
  /** A monotonic clock, ms. */
  readonly now: () => number
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
  /** Milliseconds between two tries. */
  readonly retryMs: number
}

/**
 * Builds missing indexes in the background, one after the other, while no owner catches up. Until then searches scan.
 */
export class IndexBuilder implements AsyncDisposable {
  readonly #options: IndexBuilderOptions
  readonly #ending = new AbortController()
  #last: Promise<void> = Promise.resolve()

  constructor(options: IndexBuilderOptions) {
    this.#options = options
  }

  /** Called when a role has completed the store or found it complete. */
  take(partition: number, store: LevelStore): void {
    if (store.indexMissing) this.#last = this.#last.then(() => this.#build(partition, store))
  }

  /** Never rejects. */
  async #build(partition: number, store: LevelStore): Promise<void> {
    const { restorePriority, turns, logger, now, sleep, retryMs } = this.#options
    const { signal } = this.#ending
    const began = now()
    // The store may have been taken twice, or wiped.
    if (!store.indexMissing) return
    logger.info({ partition, version: INDEX_VERSION }, 'index begun: searches scan the store until it is whole')
    while (!signal.aborted) {
      await restorePriority.turn(signal)
      try {
        if (await store.buildIndex()) {
          logger.info({ partition, devices: store.count, ms: now() - began }, 'index whole')
          return
        }
        await turns.take().next()
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof StoreCorruptedError) {
          // The partition's role wipes the store, and an empty store has its index.
          logger.error({ partition, err: error }, 'index cannot be built: the store is damaged')
          return
        }
        logger.warn({ partition, err: error }, 'index cannot be built now: beginning again')
        await sleep(retryMs, signal)
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort()
    await this.#last
  }
}
