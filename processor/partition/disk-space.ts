import { databaseFailure, wayOut } from '../contract/errors.ts'
import type { RoleClock } from './role.ts'
import type { StoreWriter } from './store-writer.ts'

/** How long stores wait for space before the processor is unfit, ms. */
const PATIENCE_MS = 30_000
/** Milliseconds between two looks at the stores. */
const LOOK_MS = 5_000
/**
 * How long a processor stays unfit, ms: at first, and at most. Space that comes and goes would otherwise move the
 * partitions to and fro, with a restore each time.
 */
const MIN_UNFIT_MS = 5 * 60_000
const MAX_UNFIT_MS = 60 * 60_000

export interface DiskSpaceMonitorOptions {
  readonly writer: Pick<StoreWriter, 'fullMs'>
  readonly clock: Pick<RoleClock, 'monotonic' | 'sleep'>
  /** Writes a little to the database of the stores. Rejects with its error. */
  readonly probe: () => Promise<void>
}

/**
 * Finds a processor unfit to hold partitions when its stores have waited for space too long. Others then take its
 * partitions, so it tries by itself whether it can write again.
 */
export class DiskSpaceMonitor {
  readonly #options: DiskSpaceMonitorOptions
  #unfitMs = 0
  /** When it became unfit; undefined while it is fit. */
  #since: number | undefined
  #fitSince = Number.NEGATIVE_INFINITY
  #problem: string | undefined

  constructor(options: DiskSpaceMonitorOptions) {
    this.#options = options
  }

  get unfit(): boolean {
    return this.#since !== undefined
  }

  /** Why the last try to write failed. */
  get problem(): string | undefined {
    return this.#problem
  }

  /** Until `signal` aborts. Never rejects. */
  async watch(signal: AbortSignal): Promise<void> {
    const { writer, clock } = this.#options
    for (;;) {
      await clock.sleep(LOOK_MS, signal)
      if (signal.aborted) return
      if (this.#since === undefined) {
        if (writer.fullMs >= PATIENCE_MS) this.#giveUp(clock.monotonic())
      } else {
        const hasSpace = await this.#hasSpace()
        if (hasSpace && clock.monotonic() - this.#since >= this.#unfitMs) this.#recover(clock.monotonic())
      }
    }
  }

  #giveUp(now: number): void {
    const isBack = now - this.#fitSince < MAX_UNFIT_MS
    this.#unfitMs = isBack ? Math.min(2 * this.#unfitMs, MAX_UNFIT_MS) : MIN_UNFIT_MS
    this.#since = now
  }

  #recover(now: number): void {
    this.#since = undefined
    this.#fitSince = now
    this.#problem = undefined
  }

  /** Any other fault of the database is left to the roles that meet it. */
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
