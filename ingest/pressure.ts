import type { Counts } from './counts.ts'
import type { Limits } from './limits.ts'

/** What is held back can go on when `proceed` is called. */
interface Waiter {
  proceed(): void
}

/** The byte budgets all connections share. */
export class Pressure {
  readonly limits: Limits
  readonly counts: Counts
  incompleteBytes = 0
  outgoingBytes = 0
  readonly #waiting = new Set<Waiter>()

  constructor(limits: Limits, counts: Counts) {
    this.limits = limits
    this.counts = counts
  }

  get full(): boolean {
    return this.counts.heldBytes >= this.limits.maxHeldBytes
  }

  /** `waiter` goes on, in its turn, once less is held. */
  wait(waiter: Waiter): void {
    if (this.#waiting.size === 0) this.counts.boundHits.add('held bytes')
    this.#waiting.add(waiter)
  }

  forget(waiter: Waiter): void {
    this.#waiting.delete(waiter)
  }

  take(bytes: number): void {
    this.counts.held++
    this.counts.heldBytes += bytes
  }

  release(messages: number, bytes: number): void {
    this.counts.held -= messages
    this.counts.heldBytes -= bytes
    if (this.#waiting.size > 0 && !this.full) this.#wake()
  }

  #wake(): void {
    for (const waiter of this.#waiting) {
      this.#waiting.delete(waiter)
      waiter.proceed()
      if (this.full) break
    }
  }
}
