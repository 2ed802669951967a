import { ProblemError } from './problem.ts'

/** Bounds how many reads of one kind are under way; one more is refused with 503, as queueing it would only delay all. */
export class Gate {
  readonly #what: string
  readonly #limit: number
  #inFlight = 0

  constructor(what: string, limit: number) {
    this.#what = what
    this.#limit = limit
  }

  get inFlight(): number {
    return this.#inFlight
  }

  /** Throws ProblemError `overloaded` at the limit. */
  async run<T>(read: () => Promise<T>): Promise<T> {
    if (this.#inFlight >= this.#limit) {
      throw ProblemError.overloaded(`${this.#limit} ${this.#what} are under way`)
    }
    this.#inFlight++
    try {
      return await read()
    } finally {
      this.#inFlight--
    }
  }
}
