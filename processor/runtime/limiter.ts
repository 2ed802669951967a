/** Work waits up to `ms` milliseconds for a place, and then fails with the error. 0 refuses it at once. */
export interface Patience {
  readonly ms: number
  readonly over: () => Error
}

/**
 * Bounds how many pieces of work run at once. Others wait in the order of their calls, as long as `patience` allows.
 */
export class Limiter {
  readonly #limit: number
  readonly #patience: Patience | undefined
  readonly #waiting = new Set<() => void>()
  #underWay = 0

  /** Without `patience` work waits until there is a place. */
  constructor(limit: number, patience?: Patience) {
    this.#limit = limit
    this.#patience = patience
  }

  get underWay(): number {
    return this.#underWay
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    const leave = await this.enter()
    try {
      return await work()
    } finally {
      leave()
    }
  }

  /** Resolves with a function that gives the place back. Call it once. */
  async enter(): Promise<() => void> {
    if (this.#underWay < this.#limit) this.#underWay++
    else if (this.#patience?.ms === 0) throw this.#patience.over()
    else await this.#wait(this.#patience)
    return this.#leave
  }

  #wait(patience: Patience | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined
      const go = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(go)
        resolve()
      }
      this.#waiting.add(go)
      if (patience === undefined) return
      timer = setTimeout(() => {
        this.#waiting.delete(go)
        reject(patience.over())
      }, patience.ms)
    })
  }

  /** The place passes to the first that waits. */
  readonly #leave = (): void => {
    const [next] = this.#waiting
    if (next === undefined) this.#underWay--
    else next()
  }
}

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

/**
 * A standby waits up to this many milliseconds before each batch: an owner that cannot catch up must not stop it for
 * good.
 */
const MAX_WAIT_MS = 1_000

/**
 * Others go on after this many milliseconds without an owner that catches up: an heir's restore ends just before it
 * becomes owner.
 */
const LULL_MS = 50

/**
 * Lets the owners in a process restore and catch up before standbys restore and indexes are built, since a partition
 * waits for its owner alone. Heirs count as owners, as the balance of the group waits for them.
 */
export class RestorePriority {
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>
  #owners = 0
  readonly #waiting = new Set<AbortController>()

  /** `sleep` resolves after `ms`, or as soon as its signal aborts. */
  constructor(sleep: (ms: number, signal: AbortSignal) => Promise<void>) {
    this.#sleep = sleep
  }

  async first<T>(work: () => Promise<T>): Promise<T> {
    this.#owners++
    try {
      return await work()
    } finally {
      if (--this.#owners === 0) for (const released of this.#waiting) released.abort()
    }
  }

  /**
   * Resolves when no owner catches up, after about MAX_WAIT_MS, or when `signal` aborts. At most one call of each
   * standby and one of the index builder wait.
   */
  async turn(signal: AbortSignal): Promise<void> {
    if (this.#owners === 0) return
    await this.#wait(signal)
    if (this.#owners > 0 || signal.aborted) return
    await this.#sleep(LULL_MS, signal)
    await this.#wait(signal)
  }

  async #wait(signal: AbortSignal): Promise<void> {
    if (this.#owners === 0) return
    const released = new AbortController()
    this.#waiting.add(released)
    await this.#sleep(MAX_WAIT_MS, AbortSignal.any([signal, released.signal]))
    this.#waiting.delete(released)
  }
}
