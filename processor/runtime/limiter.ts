/** How long one may wait, ms, and what is thrown then. */
export interface Patience {
  readonly ms: number
  readonly over: () => Error
}

/** Lets a bounded number of pieces of work be under way; who comes later waits, in order. */
export class Turnstile {
  readonly #limit: number
  readonly #waiting = new Set<() => void>()
  #underWay = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    const leave = await this.enter()
    try {
      return await work()
    } finally {
      leave()
    }
  }

  /** Resolves with what is to be called once, when the work is over. */
  async enter(patience?: Patience): Promise<() => void> {
    if (this.#underWay >= this.#limit) await this.#turn(patience)
    else this.#underWay++
    return this.#leave
  }

  #turn(patience: Patience | undefined): Promise<void> {
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

  /** The place goes to the next who waits. */
  readonly #leave = (): void => {
    const [next] = this.#waiting
    if (next === undefined) this.#underWay--
    else next()
  }
}
