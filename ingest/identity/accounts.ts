import type { Limits } from '../limits.ts'

type Bounds = Pick<Limits, 'maxMessagesPerSecond' | 'maxNewDevicesPerSecond' | 'maxDevicesPerConnection'>

/** A token bucket: `perSecond` for good, and `burst` at once. */
export class Bucket {
  readonly #perMs: number
  readonly #burst: number
  #left: number
  #filledAt = performance.now()

  constructor(perSecond: number, burst: number) {
    this.#perMs = perSecond / 1000
    this.#burst = burst
    this.#left = burst
  }

  /** It may go below zero: the next ones wait for longer. */
  take(): void {
    this.#left--
  }

  /** Ms until it has something; 0: now. The clock is read only when it seems empty. */
  waitMs(): number {
    if (this.#left >= 1) return 0
    const now = performance.now()
    this.#left = Math.min(this.#burst, this.#left + (now - this.#filledAt) * this.#perMs)
    this.#filledAt = now
    return this.#left >= 1 ? 0 : Math.ceil((1 - this.#left) / this.#perMs)
  }
}

/** How fast one client may publish, over all its connections. */
export class Pace {
  readonly #messages: Bucket
  readonly #devices: Bucket

  constructor({ maxMessagesPerSecond, maxNewDevicesPerSecond, maxDevicesPerConnection }: Bounds) {
    this.#messages = new Bucket(maxMessagesPerSecond, maxMessagesPerSecond)
    // A gateway that comes back speaks for all its devices again.
    this.#devices = new Bucket(maxNewDevicesPerSecond, maxDevicesPerConnection)
  }

  message(): void {
    this.#messages.take()
  }

  /** A connection speaks for a device for the first time. */
  newDevice(): void {
    this.#devices.take()
  }

  /** Ms until the next message may be read; 0: now. */
  waitMs(): number {
    return Math.max(this.#messages.waitMs(), this.#devices.waitMs())
  }
}

/** What one client holds of what all clients share. */
export class Account {
  readonly key: string
  /** Undefined: of clients that are not asked who they are, as many may share the address. */
  readonly pace: Pace | undefined
  connections = 0
  willBytes = 0
  /** Of the filters of its connections. */
  levels = 0

  constructor(key: string, pace: Pace | undefined) {
    this.key = key
    this.pace = pace
  }
}

/** Accounts of the clients that are connected: by name, or by address where nobody is asked who it is. */
export class Accounts {
  readonly #limits: Bounds
  readonly #accounts = new Map<string, Account>()

  constructor(limits: Bounds) {
    this.#limits = limits
  }

  /** `name`: empty when it was not asked for. */
  of(name: string, address: string): Account {
    const key = name === '' ? `address ${address}` : `name ${name}`
    const known = this.#accounts.get(key)
    return known ?? new Account(key, name === '' ? undefined : new Pace(this.#limits))
  }

  open(account: Account): void {
    account.connections++
    this.#accounts.set(account.key, account)
  }

  close(account: Account): void {
    if (--account.connections === 0) this.#accounts.delete(account.key)
  }
}
