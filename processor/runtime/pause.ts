/** Resolves after `ms`, or as soon as `signal` aborts. */
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

export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

/**
 * Settles as `work` does. After `ms` it resolves with the result of `late`, or rejects with the error that `late`
 * throws. Input that has arrived by then is read first: this process may be the one that stood still, and timers run
 * before sockets.
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

/** A condition that lasts is logged again after this many milliseconds. */
const REMIND_MS = 60_000

/** Keeps a failure that repeats from filling the log. */
export class Reminder {
  #message: string | undefined
  #at = 0

  /** True when `message` is new, or was logged more than REMIND_MS ago. The caller then logs it. */
  isDue(message: string): boolean {
    const now = performance.now()
    if (message === this.#message && now - this.#at < REMIND_MS) return false
    this.#message = message
    this.#at = now
    return true
  }
}

/** The time of a process; tests replace it. */
export interface Clock {
  /** Epoch milliseconds of a clock that may be set back. */
  now(): number
  /** Milliseconds of a clock that nobody sets, for durations and deadlines. */
  steady(): number
  /** Calls `run` once after `ms`. The returned function cancels the call. */
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

/** Each pause between two tries is twice as long as the one before, up to a bound. */
export class Backoff {
  readonly #minMs: number
  readonly #maxMs: number
  #ms: number

  constructor(minMs: number, maxMs: number) {
    this.#minMs = minMs
    this.#maxMs = maxMs
    this.#ms = minMs
  }

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

/** The read may begin before its result is needed. take() rejects when it fails. */
export class ReadAhead<T> {
  readonly #read: () => Promise<T>
  #begun: Promise<T> | undefined

  constructor(read: () => Promise<T>) {
    this.#read = read
  }

  begin(): void {
    if (this.#begun !== undefined) return
    this.#begun = this.#read()
    this.#begun.catch(() => undefined)
  }

  take(): Promise<T> {
    const begun = this.#begun ?? this.#read()
    this.#begun = undefined
    return begun
  }
}
