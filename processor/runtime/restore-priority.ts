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
