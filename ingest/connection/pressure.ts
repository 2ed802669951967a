import type { Limits } from '../limits.ts'
import type { Counts } from '../metrics.ts'

/** Has begun a packet that is not complete, or a WebSocket message that has not been handed on. */
interface Beginner {
  /** Closes it. */
  giveUp(): void
}

/**
 * Bytes of packets begun and not complete, and of WebSocket messages begun and not handed on, of all connections. Over
 * the bound the one that began first is given up: were it the one that adds to them, a few that never end theirs would
 * shut out all others.
 */
export class Incomplete {
  readonly #maxBytes: number
  /** In the order in which their packets began. */
  readonly #held = new Map<Beginner, number>()
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** `beginner` holds `bytes` of its packet. */
  hold(beginner: Beginner, bytes: number): void {
    this.#bytes += bytes - (this.#held.get(beginner) ?? 0)
    this.#held.set(beginner, bytes)
    for (const [first] of this.#held) {
      if (this.#bytes <= this.#maxBytes) break
      this.end(first)
      first.giveUp()
    }
  }

  /** Its packet is complete, or gone. */
  end(beginner: Beginner): void {
    const bytes = this.#held.get(beginner)
    if (bytes === undefined) return
    this.#held.delete(beginner)
    this.#bytes -= bytes
  }
}

/** What is held back can go on when `proceed` is called. */
interface Waiter {
  proceed(): void
}

/**
 * Work of one turn of the event loop, in telemetry messages, a few ms: sockets alone could keep it for much longer, while
 * those who process the messages, and all other connections, wait.
 */
const MAX_PER_TURN = 2_000

/** The budgets all connections share: of bytes, and of work in one turn of the event loop. */
export class Pressure {
  readonly limits: Limits
  readonly counts: Counts
  readonly incomplete: Incomplete
  outgoingBytes = 0
  #spentThisTurn = 0
  /** Those who wait for the next turn, and those who wait for bytes to be released. */
  readonly #waiting = new Set<Waiter>()
  readonly #waitingForBytes = new Set<Waiter>()

  constructor(limits: Limits, counts: Counts) {
    this.limits = limits
    this.counts = counts
    this.incomplete = new Incomplete(limits.maxIncompleteBytes)
  }

  /** Nothing more may be done in this turn: `wait`. */
  get busy(): boolean {
    return this.#spentThisTurn >= MAX_PER_TURN
  }

  /** No more messages may be taken now: `wait`. */
  get full(): boolean {
    return this.busy || this.#held
  }

  get #held(): boolean {
    return this.counts.heldBytes >= this.limits.maxHeldBytes
  }

  /** `waiter` goes on, after those who wait already, once more may be done, or taken. */
  wait(waiter: Waiter): void {
    if (this.busy) {
      this.#waiting.add(waiter)
    } else {
      if (this.#waitingForBytes.size === 0) this.counts.boundHits.add('held bytes')
      this.#waitingForBytes.add(waiter)
    }
  }

  forget(waiter: Waiter): void {
    this.#waiting.delete(waiter)
    this.#waitingForBytes.delete(waiter)
  }

  /** `work`: in telemetry messages. */
  spend(work: number): void {
    if (this.#spentThisTurn === 0) setImmediate(() => this.#turn())
    this.#spentThisTurn += work
  }

  take(bytes: number): void {
    this.counts.held++
    this.counts.heldBytes += bytes
  }

  release(messages: number, bytes: number): void {
    this.counts.held -= messages
    this.counts.heldBytes -= bytes
    if (this.#waitingForBytes.size > 0) this.#wakeForBytes()
  }

  #turn(): void {
    this.#spentThisTurn = 0
    // Once awake these wait for turns as all others do.
    this.#wakeForBytes()
    for (const waiter of this.#waiting) {
      if (this.busy) break
      this.#waiting.delete(waiter)
      waiter.proceed()
    }
  }

  #wakeForBytes(): void {
    for (const waiter of this.#waitingForBytes) {
      if (this.full) break
      this.#waitingForBytes.delete(waiter)
      waiter.proceed()
    }
  }
}
