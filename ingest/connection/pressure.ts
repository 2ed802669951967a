import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'

/** A connection with an incomplete packet, or a WebSocket with messages not passed on. */
interface Beginner {
  /** Closes the connection. */
  giveUp(): void
}

/**
 * Bytes of incomplete packets, and of WebSocket messages not passed on, of all connections. Over the bound the connection
 * that began first is closed: if it were the one that adds bytes, a few that never end theirs would shut out all others.
 */
export class Incomplete {
  readonly #maxBytes: number
  /** Bytes of each, in the order in which their packets began. */
  readonly #held = new Map<Beginner, number>()
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Sets the bytes of `beginner`. */
  hold(beginner: Beginner, bytes: number): void {
    this.#bytes += bytes - (this.#held.get(beginner) ?? 0)
    this.#held.set(beginner, bytes)
    for (const [first] of this.#held) {
      if (this.#bytes <= this.#maxBytes) break
      this.end(first)
      first.giveUp()
    }
  }

  /** The packet of `beginner` is complete, or gone. */
  end(beginner: Beginner): void {
    const bytes = this.#held.get(beginner)
    if (bytes === undefined) return
    this.#held.delete(beginner)
    this.#bytes -= bytes
  }
}

/** A connection that is held back until `proceed` is called. */
interface Waiter {
  proceed(): void
}

/** Work of one turn of the event loop, in telemetry messages: a few ms, then processing and other connections go on. */
const MAX_PER_TURN = 2_000

/**
 * The budgets that all connections share: bytes, work in one turn of the event loop, and what processing has not done yet.
 */
export class Pressure {
  readonly limits: Limits
  readonly metrics: IngestMetrics
  readonly incomplete: Incomplete
  outgoingBytes = 0
  readonly #relief: () => Promise<void> | undefined
  /** Processing is behind. It is asked once a turn, before the next one. */
  #behind = false
  #spentThisTurn = 0
  /** Connections that wait for the next turn, and those that wait for bytes to be released or for processing. */
  readonly #waiting = new Set<Waiter>()
  readonly #waitingForRoom = new Set<Waiter>()

  /** `relief`: of the log; without it nothing waits for processing. */
  constructor(limits: Limits, metrics: IngestMetrics, relief: () => Promise<void> | undefined = () => undefined) {
    this.limits = limits
    this.metrics = metrics
    this.incomplete = new Incomplete(limits.maxIncompleteBytes)
    this.#relief = relief
  }

  /** The work of this turn is done: `wait`. */
  get busy(): boolean {
    return this.#spentThisTurn >= MAX_PER_TURN
  }

  /** No message may be taken now: `wait`. */
  get closed(): boolean {
    return this.busy || this.#behind
  }

  /** No message that wants an ack may be taken now: `wait`. */
  get full(): boolean {
    return this.closed || this.metrics.heldBytes >= this.limits.maxHeldBytes
  }

  /** Waiters go on in the order in which they came. */
  wait(waiter: Waiter): void {
    if (this.busy) {
      this.#waiting.add(waiter)
    } else {
      if (this.#waitingForRoom.size === 0) this.metrics.boundHits.add(this.#behind ? 'backlog' : 'held bytes')
      this.#waitingForRoom.add(waiter)
    }
  }

  forget(waiter: Waiter): void {
    this.#waiting.delete(waiter)
    this.#waitingForRoom.delete(waiter)
  }

  /** `work`: in telemetry messages. */
  spend(work: number): void {
    if (this.#spentThisTurn === 0) setImmediate(() => this.#turn())
    this.#spentThisTurn += work
  }

  take(bytes: number): void {
    this.metrics.held++
    this.metrics.heldBytes += bytes
  }

  release(messages: number, bytes: number): void {
    this.metrics.held -= messages
    this.metrics.heldBytes -= bytes
    if (this.#waitingForRoom.size > 0) this.#wakeForRoom()
  }

  #turn(): void {
    this.#spentThisTurn = 0
    if (!this.#behind) this.#lookBehind()
    // They may have to wait for the next turn, as all others do.
    this.#wakeForRoom()
    for (const waiter of this.#waiting) {
      if (this.busy) break
      this.#waiting.delete(waiter)
      waiter.proceed()
    }
  }

  #lookBehind(): void {
    const relief = this.#relief()
    if (relief !== undefined) void this.#waitBehind(relief)
  }

  async #waitBehind(relief: Promise<void>): Promise<void> {
    this.#behind = true
    await relief
    this.#behind = false
    this.#wakeForRoom()
  }

  #wakeForRoom(): void {
    for (const waiter of this.#waitingForRoom) {
      if (this.full) break
      this.#waitingForRoom.delete(waiter)
      waiter.proceed()
    }
  }
}
