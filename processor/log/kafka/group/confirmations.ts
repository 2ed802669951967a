/** Those who wait until the group says the next time that this member is in it. */
export class Confirmations {
  readonly #waiting = new Set<() => void>()

  /** Resolves with the next one, or when `signal` aborts. A claim that is tried for days waits by one signal again and again. */
  next(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve()
      const end = (): void => {
        this.#waiting.delete(end)
        signal.removeEventListener('abort', end)
        resolve()
      }
      this.#waiting.add(end)
      signal.addEventListener('abort', end)
    })
  }

  come(): void {
    for (const end of this.#waiting) end()
  }
}
