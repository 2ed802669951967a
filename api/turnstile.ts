/** Lets a bounded number of pieces of work be under way; who comes later waits, in order. */
export class Turnstile {
  readonly #limit: number
  readonly #waiting: (() => void)[] = []
  #underWay = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#underWay >= this.#limit) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    else this.#underWay++
    try {
      return await work()
    } finally {
      // The place goes to the next who waits.
      const next = this.#waiting.shift()
      if (next === undefined) this.#underWay--
      else next()
    }
  }
}
