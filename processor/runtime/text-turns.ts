import { setImmediate } from 'node:timers/promises'

/** Bytes of statuses made into text before others get their turn: some milliseconds when they are parsed. */
const MAX_TURN_BYTES = 256 * 1024

/** Lets others have the event loop while long answers are made into text: all that share these wait together. */
export class TextTurns {
  #bytes = 0
  #pause: Promise<void> | undefined

  /** Counts a status of `bytes`; what is to be awaited when the turn is over. */
  spend(bytes: number): Promise<void> | undefined {
    this.#bytes += bytes
    if (this.#bytes > MAX_TURN_BYTES) {
      this.#bytes = 0
      this.#pause ??= this.#next()
    }
    return this.#pause
  }

  async #next(): Promise<void> {
    await setImmediate()
    this.#pause = undefined
  }
}
