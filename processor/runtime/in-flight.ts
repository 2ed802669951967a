/**
 * When none of those under way has ended for so long, ms, they may hang on a broker, and must not stop the others: they are
 * counted no more. One that waits for its turn alone goes on waiting: so late are all when many partitions are far behind,
 * and then the bound matters.
 */
const STUCK_MS = 1_000
/** A batch of less than this share of the bound waits for nobody: its partition is at its end, and its devices are asked for. */
const SMALL = 1 / 64

interface Waiting {
  readonly weight: number
  readonly released: AbortController
  /** In which it was released. */
  era: number
}

/**
 * Bounds the records that the tasks of a process have under way, from fold to store; those of large statuses weigh more.
 * What is made of a batch lives that long: of a full one in each of many partitions it is more than the young generation
 * holds, and the collector copies it twice over. A few batches keep log, store and event loop busy.
 */
export class InFlight {
  readonly #maxWeight: number
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>
  /** Of those under way, but for those that were taken for hanging: all that had begun before the present era. */
  #weight = 0
  #era = 0
  /** How many have ended. */
  #ended = 0
  /** In the order in which they came; at most one per task. */
  readonly #waiting: Waiting[] = []

  /** `sleep` resolves after `ms`, or as soon as its signal aborts. */
  constructor(maxWeight: number, sleep: (ms: number, signal: AbortSignal) => Promise<void>) {
    this.#maxWeight = maxWeight
    this.#sleep = sleep
  }

  /**
   * Does `work` with a batch of `weight`, in records: at once where it is small, or fits and nobody waits; otherwise in its
   * turn when others have ended, when none has for STUCK_MS, or when `signal` aborted.
   */
  async run<T>(weight: number, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    if (weight < this.#maxWeight * SMALL) return work()
    const mayGo = this.#waiting.length === 0 && this.#fits(weight)
    const era = mayGo ? this.#begin(weight) : await this.#wait(weight, signal)
    try {
      return await work()
    } finally {
      if (era === this.#era) this.#weight -= weight
      this.#ended++
      this.#release(({ weight: next }) => this.#fits(next))
    }
  }

  /** One alone may be larger than the bound. */
  #fits(weight: number): boolean {
    return this.#weight === 0 || this.#weight + weight <= this.#maxWeight
  }

  #begin(weight: number): number {
    this.#weight += weight
    return this.#era
  }

  async #wait(weight: number, signal: AbortSignal): Promise<number> {
    const waiting = { weight, released: new AbortController(), era: 0 }
    this.#waiting.push(waiting)
    const woken = AbortSignal.any([signal, waiting.released.signal])
    for (;;) {
      const ended = this.#ended
      await this.#sleep(STUCK_MS, woken)
      // Who released it has counted it.
      if (waiting.released.signal.aborted) return waiting.era
      if (signal.aborted) break
      if (ended !== this.#ended) continue
      this.#era++
      this.#weight = 0
      this.#release(() => true)
      return waiting.era
    }
    this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
    return this.#begin(weight)
  }

  /** Lets them in, the first first, as long as each `may`. */
  #release(may: (first: Waiting) => boolean): void {
    for (;;) {
      const [first] = this.#waiting
      if (first === undefined || !may(first)) return
      this.#waiting.shift()
      first.era = this.#begin(first.weight)
      first.released.abort()
    }
  }
}
