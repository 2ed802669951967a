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
