/** When no batch ends for this many milliseconds, those under way may hang on a broker and count no more. */
const STUCK_MS = 1_000
/** A batch below this share of the bound never waits: its partition is at its end, and people read its devices. */
const SMALL = 1 / 64

interface Waiting {
  readonly weight: number
  readonly released: AbortController
  era: number
}

/**
 * Bounds the records that the tasks of a process have under way, from fold to store. Records of large statuses weigh
 * more. The objects of a batch live that long: with a full batch in each of many partitions they outgrow V8's young
 * generation, which then copies them twice. A few batches keep log, store and event loop busy.
 */
export class InFlight {
  readonly #maxWeight: number
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>
  /** Weight of the batches that began in this era; batches of earlier eras are taken for hanging. */
  #weight = 0
  #era = 0
  #ended = 0
  /** Sorted by arrival; each task has one entry at most. */
  readonly #waiting: Waiting[] = []

  /** `sleep` resolves after `ms`, or as soon as its signal aborts. */
  constructor(maxWeight: number, sleep: (ms: number, signal: AbortSignal) => Promise<void>) {
    this.#maxWeight = maxWeight
    this.#sleep = sleep
  }

  /**
   * Runs `work` for a batch of `weight` records. A small batch runs at once, as does one that fits while none waits.
   * Any other waits for its turn: until enough others have ended, none has ended for STUCK_MS, or `signal` aborts.
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

  /** A single batch may exceed the bound. */
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
      // #release has added its weight.
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

  /** Releases the first in the queue for as long as `may` allows it. */
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
