import { databaseFailure, wayOut } from '../log/embedded/failure.ts'
import type { StoreFaults } from './store-faults.ts'

/** So long, ms, stores wait for space until others are to have their partitions. */
const PATIENCE_MS = 30_000
/** How often it is looked whether they wait, and then tried whether they would have to, ms. */
const LOOK_MS = 5_000
/**
 * How long a processor stays unfit, ms: at first, and at most. Space that comes and goes would have the partitions do so, and
 * each time copies be made.
 */
const MIN_UNFIT_MS = 5 * 60_000
const MAX_UNFIT_MS = 60 * 60_000

export interface FitnessOptions {
  readonly faults: Pick<StoreFaults, 'fullMs'>
  /** Writes a little to the database of the stores. Rejects with its error. */
  readonly probe: () => Promise<void>
  readonly monotonic: () => number
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
}

/**
 * Whether a processor should hold partitions. Unfit is one whose stores have waited for space; what it holds then others
 * take, so that it finds out by itself when it can write again.
 */
export class Fitness {
  readonly #options: FitnessOptions
  #unfitMs = 0
  /** When it became unfit; undefined while it is fit. */
  #since: number | undefined
  #fitSince = Number.NEGATIVE_INFINITY
  #problem: string | undefined

  constructor(options: FitnessOptions) {
    this.#options = options
  }

  get unfit(): boolean {
    return this.#since !== undefined
  }

  /** Why nothing could be written when it was tried last. */
  get problem(): string | undefined {
    return this.#problem
  }

  /** Until `signal` aborts. Never rejects. */
  async watch(signal: AbortSignal): Promise<void> {
    const { faults, monotonic, sleep } = this.#options
    for (;;) {
      await sleep(LOOK_MS, signal)
      if (signal.aborted) return
      if (this.#since === undefined) {
        if (faults.fullMs >= PATIENCE_MS) this.#giveUp(monotonic())
      } else {
        const hasSpace = await this.#hasSpace()
        if (hasSpace && monotonic() - this.#since >= this.#unfitMs) this.#takeUp(monotonic())
      }
    }
  }

  #giveUp(now: number): void {
    const isBack = now - this.#fitSince < MAX_UNFIT_MS
    this.#unfitMs = isBack ? Math.min(2 * this.#unfitMs, MAX_UNFIT_MS) : MIN_UNFIT_MS
    this.#since = now
  }

  #takeUp(now: number): void {
    this.#since = undefined
    this.#fitSince = now
    this.#problem = undefined
  }

  /** What else is wrong with the database is for those to meet who work with it. */
  async #hasSpace(): Promise<boolean> {
    try {
      await this.#options.probe()
      this.#problem = undefined
    } catch (error) {
      const { code, message } = databaseFailure(error)
      this.#problem = `the stores cannot be written: ${message}: ${wayOut(code, message)}`
      return code !== 'LEVEL_NO_SPACE'
    }
    return true
  }
}
