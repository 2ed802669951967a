import type { Counts } from './counts.ts'
import { Incomplete } from './incomplete.ts'
import type { Limits } from './limits.ts'

/** What is held back can go on when `proceed` is called. */
interface Waiter {
  proceed(): void
}

/**
 * Messages taken in one turn of the event loop, a few ms of work: sockets alone could keep it for much longer, while
 * those who process the messages wait.
 */
const MAX_PER_TURN = 2_000

/** The budgets all connections share: of bytes, and of messages in one turn of the event loop. */
export class Pressure {
  readonly limits: Limits
  readonly counts: Counts
  readonly incomplete: Incomplete
  outgoingBytes = 0
  #takenThisTurn = 0
  readonly #waiting = new Set<Waiter>()

  constructor(limits: Limits, counts: Counts) {
    this.limits = limits
    this.counts = counts
    this.incomplete = new Incomplete(limits.maxIncompleteBytes)
  }

  /** Nothing more may be taken now: `wait`. */
  get full(): boolean {
    return this.#takenThisTurn >= MAX_PER_TURN || this.#held
  }

  get #held(): boolean {
    return this.counts.heldBytes >= this.limits.maxHeldBytes
  }

  /** `waiter` goes on, after those who wait already, once more may be taken. */
  wait(waiter: Waiter): void {
    if (this.#waiting.size === 0 && this.#held) this.counts.boundHits.add('held bytes')
    this.#waiting.add(waiter)
  }

  forget(waiter: Waiter): void {
    this.#waiting.delete(waiter)
  }

  take(bytes: number): void {
    if (this.#takenThisTurn++ === 0) setImmediate(() => this.#turn())
    this.counts.held++
    this.counts.heldBytes += bytes
  }

  release(messages: number, bytes: number): void {
    this.counts.held -= messages
    this.counts.heldBytes -= bytes
    if (this.#waiting.size > 0 && !this.full) this.#wake()
  }

  #turn(): void {
    this.#takenThisTurn = 0
    if (!this.#held) this.#wake()
  }

  #wake(): void {
    for (const waiter of this.#waiting) {
      this.#waiting.delete(waiter)
      waiter.proceed()
      if (this.full) break
    }
  }
}
