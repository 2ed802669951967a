/** Time, as what waits for it needs it. */
export interface Clock {
  /** Epoch ms. */
  now(): number
  /** Calls `run` once, after `ms`; what it gives takes that back. */
  after(ms: number, run: () => void): () => void
}

export const systemClock: Clock = {
  now: Date.now,
  after(ms, run) {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
}
