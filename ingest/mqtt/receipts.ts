import type { Session } from './session.ts'

/**
 * A QoS 2 message that was received and not released. `pending`: its append is under way. `appended`: in the log.
 * `stored`: the broker has it too, and waits for PUBREL. `failed`: the log did not take it.
 */
export interface Received {
  state: 'pending' | 'appended' | 'stored' | 'failed'
}

/** Whose packet ids: of a persistent session its client id, of a clean one the session itself, which nobody resumes. */
export type Owner = string | Session

/**
 * QoS 2 "method B" of MQTT 3.1.1 section 4.3.3: a message takes effect when PUBLISH arrives, and its packet id is kept
 * until PUBREL so that a retransmission takes none. Only ids are kept, never messages.
 */
export class ReceiptStore {
  readonly #sessions = new Map<Owner, Map<number, Received>>()
  readonly #max: number
  readonly #makeRoom: () => boolean
  #count = 0

  /** `max`: ids of all sessions; `makeRoom` clears those of one, or says that there is none to clear. */
  constructor(max: number, makeRoom: () => boolean) {
    this.#max = max
    this.#makeRoom = makeRoom
  }

  /** One more id may be kept. */
  mayBegin(): boolean {
    while (this.#count >= this.#max) if (!this.#makeRoom()) return false
    return true
  }

  has(owner: Owner): boolean {
    return this.#sessions.has(owner)
  }

  get(owner: Owner, messageId: number): Received | undefined {
    return this.#sessions.get(owner)?.get(messageId)
  }

  begin(owner: Owner, messageId: number): Received {
    const receipts = this.#sessions.get(owner) ?? new Map<number, Received>()
    this.#sessions.set(owner, receipts)
    const received: Received = { state: 'pending' }
    receipts.set(messageId, received)
    this.#count++
    return received
  }

  /** Removes an id, if it still stands for `received`: the session may have begun anew meanwhile. */
  forget(owner: Owner, messageId: number, received = this.get(owner, messageId)): void {
    const receipts = this.#sessions.get(owner)
    if (receipts === undefined || received === undefined || receipts.get(messageId) !== received) return
    receipts.delete(messageId)
    this.#count--
    if (receipts.size === 0) this.#sessions.delete(owner)
  }

  /** The session is over for good. */
  clear(owner: Owner): void {
    this.#count -= this.#sessions.get(owner)?.size ?? 0
    this.#sessions.delete(owner)
  }
}
