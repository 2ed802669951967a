/** Has begun a packet that is not complete, or a WebSocket message that has not been handed on. */
interface Beginner {
  /** Closes it. */
  giveUp(): void
}

/**
 * Bytes of packets begun and not complete, and of WebSocket messages begun and not handed on, of all connections. Over
 * the bound the one that began first is given up: were it the one that adds to them, a few that never end theirs would
 * shut out all others.
 */
export class Incomplete {
  readonly #maxBytes: number
  /** In the order in which their packets began. */
  readonly #held = new Map<Beginner, number>()
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** `beginner` holds `bytes` of its packet. */
  hold(beginner: Beginner, bytes: number): void {
    this.#bytes += bytes - (this.#held.get(beginner) ?? 0)
    this.#held.set(beginner, bytes)
    for (const [first] of this.#held) {
      if (this.#bytes <= this.#maxBytes) break
      this.end(first)
      first.giveUp()
    }
  }

  /** Its packet is complete, or gone. */
  end(beginner: Beginner): void {
    const bytes = this.#held.get(beginner)
    if (bytes === undefined) return
    this.#held.delete(beginner)
    this.#bytes -= bytes
  }
}
