import type { Connection } from './connection.ts'
import type { Counts } from './counts.ts'
import type { Hold } from './gather.ts'

const FIRST_ACKS = 16

/**
 * The PUBACKs a connection owes for messages of the fast path. Being settled in the order of receipt, they need no object
 * each. Bounded by what a connection may have unacknowledged.
 */
export class Acks implements Hold {
  readonly #connection: Connection
  readonly #counts: Counts
  /** A ring of packet ids and bytes; its size is a power of two. */
  #ids = new Uint16Array(FIRST_ACKS)
  #bytes = new Uint32Array(FIRST_ACKS)
  #head = 0
  #owed = 0

  constructor(connection: Connection, counts: Counts) {
    this.#connection = connection
    this.#counts = counts
  }

  /** One more is owed; `settle` is called for it, in its turn. */
  owe(messageId: number, bytes: number): void {
    if (this.#owed === this.#ids.length) this.#grow()
    const at = (this.#head + this.#owed++) & (this.#ids.length - 1)
    this.#ids[at] = messageId
    this.#bytes[at] = bytes
  }

  settle(error: Error | null): void {
    const at = this.#head
    this.#head = (at + 1) & (this.#ids.length - 1)
    this.#owed--
    this.#connection.release(this.#bytes[at] as number)
    if (error !== null) {
      this.#connection.fail('append failed', error.message)
      return
    }
    this.#counts.acknowledged[1]++
    this.#connection.acknowledge(this.#ids[at] as number)
  }

  #grow(): void {
    const ids = new Uint16Array(this.#ids.length * 2)
    const bytes = new Uint32Array(ids.length)
    const { length } = this.#ids
    for (let i = 0; i < length; i++) {
      const at = (this.#head + i) & (length - 1)
      ids[i] = this.#ids[at] as number
      bytes[i] = this.#bytes[at] as number
    }
    this.#ids = ids
    this.#bytes = bytes
    this.#head = 0
  }
}
