/** How long a batch is held back, ms: those under way may hang on a broker, and must not stop the others for good. */
const MAX_WAIT_MS = 1_000

interface Waiting {
  readonly records: number
  readonly released: AbortController
}

/**
 * Bounds the records that the tasks of a process have under way, from fold to store. What is made of a batch lives that
 * long: of a full one in each of many partitions it is more than the young generation holds, and the collector copies it
 * twice over. A few batches keep log, store and event loop busy.
 */
export class InFlight {
  readonly #maxRecords: number
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>
  #records = 0
  /** In the order in which they came; at most one per task. */
  readonly #waiting: Waiting[] = []

  /** `sleep` resolves after `ms`, or as soon as its signal aborts. */
  constructor(maxRecords: number, sleep: (ms: number, signal: AbortSignal) => Promise<void>) {
    this.#maxRecords = maxRecords
    this.#sleep = sleep
  }

  /**
   * Does `work` with a batch of `records`: at once where they fit, otherwise when others have ended, after about
   * MAX_WAIT_MS, or when `signal` aborted.
   */
  async run<T>(records: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    if (this.#fits(records)) this.#records += records
    else await this.#wait(records, signal)
    try {
      return await work()
    } finally {
      this.#leave(records)
    }
  }

  /** One alone may be larger than the bound. A small one need not wait behind a large one, which others will let in. */
  #fits(records: number): boolean {
    return this.#records === 0 || this.#records + records <= this.#maxRecords
  }

  async #wait(records: number, signal: AbortSignal): Promise<void> {
    const waiting = { records, released: new AbortController() }
    this.#waiting.push(waiting)
    await this.#sleep(MAX_WAIT_MS, AbortSignal.any([signal, waiting.released.signal]))
    // Who released it has counted it.
    if (waiting.released.signal.aborted) return
    this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
    this.#records += records
  }

  #leave(records: number): void {
    this.#records -= records
    for (;;) {
      const [first] = this.#waiting
      if (first === undefined || !this.#fits(first.records)) return
      this.#waiting.shift()
      this.#records += first.records
      first.released.abort()
    }
  }
}
