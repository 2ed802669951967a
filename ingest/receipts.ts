/**
 * A QoS 2 message that was received and not released. `pending`: its append is under way. `appended`: in the log.
 * `stored`: the broker has it too, and waits for PUBREL. `failed`: the log did not take it.
 */
export interface Received {
  state: 'pending' | 'appended' | 'stored' | 'failed'
}

/**
 * QoS 2 "method B" of MQTT 3.1.1 section 4.3.3: a message takes effect when PUBLISH arrives, and its packet id is kept
 * until PUBREL so that a retransmission takes none. Only ids are kept, never messages.
 */
export class ReceiptStore {
  /** Client id -> packet id. */
  readonly #sessions = new Map<string, Map<number, Received>>()
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

  has(clientId: string): boolean {
    return this.#sessions.has(clientId)
  }

  get(clientId: string, messageId: number): Received | undefined {
    return this.#sessions.get(clientId)?.get(messageId)
  }

  begin(clientId: string, messageId: number): Received {
    const receipts = this.#sessions.get(clientId) ?? new Map<number, Received>()
    this.#sessions.set(clientId, receipts)
    const received: Received = { state: 'pending' }
    receipts.set(messageId, received)
    this.#count++
    return received
  }

  /** Removes an id, if it still stands for `received`: the session may have begun anew meanwhile. */
  forget(clientId: string, messageId: number, received = this.get(clientId, messageId)): void {
    const receipts = this.#sessions.get(clientId)
    if (receipts === undefined || received === undefined || receipts.get(messageId) !== received) return
    receipts.delete(messageId)
    this.#count--
    if (receipts.size === 0) this.#sessions.delete(clientId)
  }

  /** The session begins or ends clean. */
  clear(clientId: string): void {
    this.#count -= this.#sessions.get(clientId)?.size ?? 0
    this.#sessions.delete(clientId)
  }
}
