/** Resolves after so many ms, or as soon as `signal` aborts. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve()
    const end = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, ms)
    signal?.addEventListener('abort', end, { once: true })
  })
}

/** Resolves when `signal` aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

/**
 * Settles as `work` does; after `ms` without that, resolves with what `late` returns, or rejects with what it throws. Input
 * that has arrived by then is read first: this process may be the one that stood still, and timers run before sockets.
 */
export async function within<T, L>(work: Promise<T>, ms: number, late: () => L): Promise<T | L> {
  const { promise: over, resolve } = Promise.withResolvers<void>()
  let soon: NodeJS.Immediate | undefined
  const timer = setTimeout(() => {
    soon = setImmediate(resolve)
  }, ms)
  try {
    return await Promise.race([work, over.then(late)])
  } finally {
    clearTimeout(timer)
    clearImmediate(soon)
  }
}

/** What lasts is told again after so long, ms. */
const REMIND_MS = 60_000

/** What the log has been told of what is tried again and again. */
export class Reminder {
  #message: string | undefined
  #at = 0

  /** Whether `message` has not been told yet, another has been since, or not for long. Who asks tells it then. */
  isDue(message: string): boolean {
    const now = performance.now()
    if (message === this.#message && now - this.#at < REMIND_MS) return false
    this.#message = message
    this.#at = now
    return true
  }
}

/** Time, as what waits for it needs it. */
export interface Clock {
  /** Epoch ms, as of now: somebody may set it back. */
  now(): number
  /** Ms, of a clock that nobody sets: for how long something takes, and when it is due. */
  steady(): number
  /** Calls `run` once, after `ms`; what it gives takes that back. */
  after(ms: number, run: () => void): () => void
}

export const systemClock: Clock = {
  now: Date.now,
  steady: () => performance.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
}

/** The pauses between the tries of something that failed: each twice as long as the one before, up to a bound. */
export class Backoff {
  readonly #minMs: number
  readonly #maxMs: number
  #ms: number

  constructor(minMs: number, maxMs: number) {
    this.#minMs = minMs
    this.#maxMs = maxMs
    this.#ms = minMs
  }

  /** Milliseconds to wait before the next try. */
  next(): number {
    const ms = this.#ms
    this.#ms = Math.min(ms * 2, this.#maxMs)
    return ms
  }

  /** A try succeeded: the next failure waits the least time again. */
  reset(): void {
    this.#ms = this.#minMs
  }
}
