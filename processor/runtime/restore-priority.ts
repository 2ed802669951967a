/** How long a standby holds back its beginning and each batch of its restore, ms: an owner that cannot catch up must not stop it for good. */
const MAX_WAIT_MS = 1_000

/** After so long without an owner that catches up, ms, others go on: an heir ends just before it is an owner. */
const LULL_MS = 50

/**
 * Has the owners of one process restore, and process what came in meanwhile, before its standbys do, and before indexes
 * are built: on an owner a partition waits, on the others nothing does. Heirs restore before other standbys too, as the
 * balance of the group waits on them.
 */
export class RestorePriority {
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>
  #owners = 0
  readonly #waiting = new Set<AbortController>()

  /** `sleep` resolves after `ms`, or as soon as its signal aborts. */
  constructor(sleep: (ms: number, signal: AbortSignal) => Promise<void>) {
    this.#sleep = sleep
  }

  /** An owner, or an heir, catches up for as long as `work` takes. */
  async first<T>(work: () => Promise<T>): Promise<T> {
    this.#owners++
    try {
      return await work()
    } finally {
      if (--this.#owners === 0) for (const released of this.#waiting) released.abort()
    }
  }

  /**
   * Resolves when no owner catches up, after about MAX_WAIT_MS, or when `signal` aborts. At most one call per standby, and
   * one of the index builder, waits.
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
