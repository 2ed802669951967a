import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'

/** Work that nobody waits for takes about so long at a time, ms, … */
const SLICE_MS = 1
/** … and rests for so many times as long as it took. */
const REST = 12
/** A slice that had to wait for the disk is not followed by more than this, ms. */
const MAX_REST_MS = 100

/** Leaves most of the event loop's time to others, in which an answer needs several turns. */
export class Leisure {
  readonly #signal: AbortSignal
  readonly #hurried: () => boolean
  #since = performance.now()

  /** While it is `hurried`, the event loop has no more than a turn between slices. */
  constructor(hurried: () => boolean, signal: AbortSignal) {
    this.#hurried = hurried
    this.#signal = signal
  }

  /** To be awaited between two steps that take well under a slice each. */
  pause(): Promise<void> | undefined {
    const took = performance.now() - this.#since
    return took < SLICE_MS ? undefined : this.#rest(took)
  }

  async #rest(took: number): Promise<void> {
    if (this.#hurried()) await turn()
    // It ends, too, when there is nothing to go on with.
    else await delay(Math.min(took * REST, MAX_REST_MS), undefined, { signal: this.#signal }).catch(() => undefined)
    this.#since = performance.now()
  }
}
