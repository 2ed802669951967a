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
