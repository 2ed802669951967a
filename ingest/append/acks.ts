import type { Connection } from '../connection/connection.ts'
import type { IngestMetrics } from '../metrics.ts'
import type { Hold } from './batcher.ts'

const FIRST_ACKS = 16

const WAITING = 0
const TAKEN = 1
const FAILED = 2

/** Called with null, aedes sends the ack; with an error, the connection closes without it. */
export type Answer = (error?: Error | null) => void

/**
 * The PUBACKs and PUBRECs that a connection owes. They leave in the order of receipt [MQTT-4.6.0-2, MQTT-4.6.0-3], though
 * the log takes messages of several partitions in any order. A ticket is the place of an ack in that order. `maxUnacked`
 * bounds them; an ack of the fast path allocates nothing.
 */
export class Acks implements Hold {
  readonly #connection: Connection
  readonly #metrics: IngestMetrics
  /** Ring buffers of packet ids, bytes and states; their size is a power of two. */
  #ids = new Uint16Array(FIRST_ACKS)
  #bytes = new Uint32Array(FIRST_ACKS)
  #states = new Uint8Array(FIRST_ACKS)
  /** The acks that aedes sends, by ticket. */
  readonly #answers = new Map<number, { readonly qos: 1 | 2; readonly answer: Answer }>()
  #error: Error | null = null
  /** aedes has yet to write a PUBREC; further PUBRECs may follow at once. */
  #pubacksHeld = false
  #head = 0
  #end = 0

  constructor(connection: Connection, metrics: IngestMetrics) {
    this.#connection = connection
    this.#metrics = metrics
  }

  /** A PUBACK for a message of `bytes`; returns its ticket. */
  owe(messageId: number, bytes: number): number {
    if (this.#end - this.#head === this.#ids.length) this.#grow()
    const at = this.#end & (this.#ids.length - 1)
    this.#ids[at] = messageId
    this.#bytes[at] = bytes
    this.#states[at] = WAITING
    return this.#end++
  }

  /** An ack that aedes sends when `answer` is called, in its turn; returns its ticket. */
  oweAnswer(qos: 1 | 2, bytes: number, answer: Answer): number {
    const ticket = this.owe(0, bytes)
    this.#answers.set(ticket, { qos, answer })
    return ticket
  }

  /** The log took the message, or not: then the connection closes at once. */
  settle(error: Error | null, ticket: number): void {
    const settled = ticket & (this.#ids.length - 1)
    const bytes = this.#bytes[settled] as number
    this.#states[settled] = error === null ? TAKEN : FAILED
    this.#connection.settled(bytes)
    if (error !== null) {
      this.#error ??= error
      this.#connection.fail('append failed', error.message)
    }
    this.#proceed()
  }

  #proceed(): void {
    while (this.#head < this.#end) {
      const at = this.#head & (this.#ids.length - 1)
      const state = this.#states[at]
      if (state === WAITING) break
      if (this.#pubacksHeld && this.#answers.get(this.#head)?.qos !== 2) break
      this.#leave(at, state === FAILED ? this.#error : null)
    }
  }

  #leave(at: number, error: Error | null): void {
    const ticket = this.#head++
    const owed = this.#answers.size === 0 ? undefined : this.#answers.get(ticket)
    if (error === null && !this.#connection.destroyed) this.#metrics.acknowledged[owed?.qos ?? 1]++
    if (owed !== undefined) {
      this.#answers.delete(ticket)
      if (owed.qos === 2 && error === null) this.#holdPubacks()
      owed.answer(error)
    } else if (error === null) {
      this.#connection.acknowledge(this.#ids[at] as number)
    }
    // Last, as it may let more messages in, and their acks must not overtake this one.
    this.#connection.release()
  }

  /**
   * aedes writes a PUBREC some promises after its answer, and a PUBACK at once. MQTT orders each kind alone, but some
   * clients drop the connection when a PUBACK overtakes a PUBREC (rumqttc 0.24).
   */
  #holdPubacks(): void {
    if (this.#pubacksHeld) return
    this.#pubacksHeld = true
    // A tick that a microtask asks for runs after all microtasks.
    queueMicrotask(() =>
      process.nextTick(() => {
        this.#pubacksHeld = false
        this.#proceed()
      }),
    )
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
