import type { Hold } from './batcher.ts'
import type { Connection } from './connection.ts'
import type { Counts } from './counts.ts'

const FIRST_ACKS = 16

const WAITING = 0
const TAKEN = 1
const FAILED = 2

/** Called with null, the broker sends the ack; with an error, the connection is closed without it. */
export type Answer = (error?: Error | null) => void

/**
 * The PUBACKs and PUBRECs a connection owes. They leave in the order of receipt [MQTT-4.6.0-2, MQTT-4.6.0-3], in whatever
 * order the log takes the messages, which may be of several partitions. A ticket is the place of one in that order.
 * Bounded by what a connection may have unacknowledged; an ack of the fast path takes no object.
 */
export class Acks implements Hold {
  readonly #connection: Connection
  readonly #counts: Counts
  /** A ring of packet ids, bytes and states; its size is a power of two. */
  #ids = new Uint16Array(FIRST_ACKS)
  #bytes = new Uint32Array(FIRST_ACKS)
  #states = new Uint8Array(FIRST_ACKS)
  /** Tickets of the acks that the broker sends. */
  readonly #answers = new Map<number, { readonly qos: 1 | 2; readonly answer: Answer }>()
  #error: Error | null = null
  #head = 0
  #end = 0

  constructor(connection: Connection, counts: Counts) {
    this.#connection = connection
    this.#counts = counts
  }

  /** A PUBACK is owed for a message of `bytes`; returns its ticket. */
  owe(messageId: number, bytes: number): number {
    if (this.#end - this.#head === this.#ids.length) this.#grow()
    const at = this.#end & (this.#ids.length - 1)
    this.#ids[at] = messageId
    this.#bytes[at] = bytes
    this.#states[at] = WAITING
    return this.#end++
  }

  /** An ack is owed that the broker sends when it is answered, in its turn; returns its ticket. */
  oweAnswer(qos: 1 | 2, bytes: number, answer: Answer): number {
    const ticket = this.owe(0, bytes)
    this.#answers.set(ticket, { qos, answer })
    return ticket
  }

  /** The log has the message, or not: then the connection is closed at once. */
  settle(error: Error | null, ticket: number): void {
    const settled = ticket & (this.#ids.length - 1)
    const bytes = this.#bytes[settled] as number
    this.#states[settled] = error === null ? TAKEN : FAILED
    // The log has what an ack still waits for its turn with: it is held no more.
    this.#connection.settled(bytes)
    if (error !== null) {
      this.#error ??= error
      this.#connection.fail('append failed', error.message)
    }
    while (this.#head < this.#end) {
      const at = this.#head & (this.#ids.length - 1)
      const state = this.#states[at]
      if (state === WAITING) break
      this.#leave(at, state === FAILED ? this.#error : null)
    }
  }

  #leave(at: number, error: Error | null): void {
    const ticket = this.#head++
    const owed = this.#answers.size === 0 ? undefined : this.#answers.get(ticket)
    // Of a connection that is gone no ack leaves.
    if (error === null && !this.#connection.destroyed) this.#counts.acknowledged[owed?.qos ?? 1]++
    if (owed !== undefined) {
      this.#answers.delete(ticket)
      owed.answer(error)
    } else if (error === null) {
      this.#connection.acknowledge(this.#ids[at] as number)
    }
    // Last: it may let more messages in, and their acks are not to overtake this one.
    this.#connection.release()
  }

  #grow(): void {
    const before = this.#ids.length - 1
    const ids = new Uint16Array(2 * this.#ids.length)
    const bytes = new Uint32Array(ids.length)
    const states = new Uint8Array(ids.length)
    for (let ticket = this.#head; ticket < this.#end; ticket++) {
      const from = ticket & before
      const to = ticket & (ids.length - 1)
      ids[to] = this.#ids[from] as number
      bytes[to] = this.#bytes[from] as number
      states[to] = this.#states[from] as number
    }
    this.#ids = ids
    this.#bytes = bytes
    this.#states = states
  }
}
