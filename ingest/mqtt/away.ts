/** Sessions that keep state while their client is away, the longest away first. */
export class Away {
  /** Client id -> when it went, ms, of a clock that nobody sets. */
  readonly #since = new Map<string, number>()

  add(clientId: string, now: number): void {
    this.#since.delete(clientId)
    this.#since.set(clientId, now)
  }

  delete(clientId: string): void {
    this.#since.delete(clientId)
  }

  /** Takes out the one that is away longest, if it went at `before` or earlier. */
  take(before = Number.POSITIVE_INFINITY): string | undefined {
    for (const [clientId, since] of this.#since) {
      if (since > before) return undefined
      this.#since.delete(clientId)
      return clientId
    }
    return undefined
  }
}
