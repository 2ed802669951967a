/** How long a batch is held back, ms: those under way may hang on a broker, and must not stop the others for good. */
const MAX_WAIT_MS = 1_000

interface Waiting {
  readonly weight: number
  readonly released: AbortController
}

/**
 * Bounds the records that the tasks of a process have under way, from fold to store; those of large statuses weigh more. What is made of a batch lives that
 * long: of a full one in each of many partitions it is more than the young generation holds, and the collector copies it
 * twice over. A few batches keep log, store and event loop busy.
 */
export class InFlight {
  readonly #maxWeight: number
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>
  #weight = 0
  /** In the order in which they came; at most one per task. */
  readonly #waiting: Waiting[] = []

  /** `sleep` resolves after `ms`, or as soon as its signal aborts. */
  constructor(maxWeight: number, sleep: (ms: number, signal: AbortSignal) => Promise<void>) {
    this.#maxWeight = maxWeight
    this.#sleep = sleep
  }

  /**
   * Does `work` with a batch of `weight`, in records: at once where it fits, otherwise when others have ended, after about
   * MAX_WAIT_MS, or when `signal` aborted.
   */
  async run<T>(weight: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    if (this.#fits(weight)) this.#weight += weight
    else await this.#wait(weight, signal)
    try {
      return await work()
    } finally {
      this.#leave(weight)
    }
  }

  /** One alone may be larger than the bound. A small one need not wait behind a large one, which others will let in. */
  #fits(weight: number): boolean {
    return this.#weight === 0 || this.#weight + weight <= this.#maxWeight
  }

  async #wait(weight: number, signal: AbortSignal): Promise<void> {
    const waiting = { weight, released: new AbortController() }
    this.#waiting.push(waiting)
    await this.#sleep(MAX_WAIT_MS, AbortSignal.any([signal, waiting.released.signal]))
    // Who released it has counted it.
    if (waiting.released.signal.aborted) return
    this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
    this.#weight += weight
  }

  #leave(weight: number): void {
    this.#weight -= weight
    for (;;) {
      const [first] = this.#waiting
      if (first === undefined || !this.#fits(first.weight)) return
      this.#waiting.shift()
      this.#weight += first.weight
      first.released.abort()
    }
  }
}
