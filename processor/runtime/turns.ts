/**
 * Work of one turn of the event loop, in bytes of JSON handled: about 3 ms. Work is counted, not timed, so that a
 * replay takes the same steps.
 */
const TURN_WORK = 512 * 1024

/** What a record or a status costs beside its bytes. */
const RECORD_WORK = 128

/** Shares the event loop between the tasks of a process: when a turn's work is done, sockets are served in between. */
export class Turns {
  #spent = 0
  #tickets = 0
  /** In the order of the tickets; at most one per task. */
  readonly #waiting: Turn[] = []

  /** For one batch. The oldest batch goes first, so that it is committed while the next one is folded. */
  take(): Turn {
    return new Turn(this, ++this.#tickets)
  }

  /** Counts work; true when the turn is over. */
  spend(bytes: number): boolean {
    this.#spent += bytes + RECORD_WORK
    return this.#spent >= TURN_WORK
  }

  wait(turn: Turn): void {
    let i = this.#waiting.length
    while (i > 0 && (this.#waiting[i - 1] as Turn).ticket > turn.ticket) i--
    this.#waiting.splice(i, 0, turn)
    if (this.#waiting.length === 1) setImmediate(this.#begin)
  }

  readonly #begin = (): void => {
    this.#spent = 0
    this.#waiting.shift()?.resume()
    // An immediate made now runs in the next turn.
    if (this.#waiting.length > 0) setImmediate(this.#begin)
  }
}

/** The turns that one batch takes. */
export class Turn {
  readonly ticket: number
  readonly #turns: Turns
  resume: () => void = () => {}

  constructor(turns: Turns, ticket: number) {
    this.#turns = turns
    this.ticket = ticket
  }

  /** Counts the handling of one record of `bytes`; true when the turn is over: then await `next`. */
  spend(bytes: number): boolean {
    return this.#turns.spend(bytes)
  }

  next(): Promise<void> {
    return new Promise((resolve) => {
      this.resume = resolve
      this.#turns.wait(this)
    })
  }
}
