import { Acks } from '../append/acks.ts'
import type { Connection } from '../connection/connection.ts'
import type { Account } from '../identity/accounts.ts'
import { NOBODY, type Principal } from '../identity/principal.ts'
import type { IngestMetrics } from '../metrics.ts'
import { Filters } from './topics.ts'

/** Denied messages are counted within this time, ms. */
const DENIALS_WITHIN_MS = 60_000

/** One MQTT connection from CONNECT to its end, and the devices it speaks for. */
export class Session {
  /** Grows from session to session, and over restarts as far as the clock does. */
  readonly epoch: number
  /** The id in CONNECT; empty when the broker chose one. */
  readonly clientId: string
  readonly connection: Connection
  readonly acks: Acks
  /** What it holds of what all share; undefined until CONNACK. */
  account: Account | undefined
  /** Who the client proved to be. */
  principal: Principal = NOBODY
  /** `Guard.rulesVersion` when the principal's rights and filters were last looked at. */
  rulesVersion = 0
  /** Name and password of CONNECT, until they were verified. */
  login: { readonly username: string | undefined; readonly password: Buffer | undefined } | undefined
  /** Denied messages within the time that ends at `denialsUntil`, by performance.now(). */
  #denials = 0
  #denialsUntil = 0
  /** The device that the client id names; it is online before it publishes. */
  ownDevice: string | undefined
  /** Messages by device. */
  readonly devices = new Map<string, number>()
  readonly filters = new Filters()
  willBytes = 0
  /** CONNACK accepted it. */
  accepted = false
  /** A newer connection with the same client id is taking over. */
  takenOver = false
  ended = false

  constructor(epoch: number, clientId: string, connection: Connection, metrics: IngestMetrics) {
    this.epoch = epoch
    this.clientId = clientId
    this.connection = connection
    this.acks = new Acks(connection, metrics)
  }

  /** Counts a message that the client may not publish; false when there were too many of late. */
  deny(now: number, limit: number): boolean {
    if (now >= this.#denialsUntil) {
      this.#denials = 0
      this.#denialsUntil = now + DENIALS_WITHIN_MS
    }
    return ++this.#denials <= limit
  }
}

/** Session epochs: the clock in microseconds, the last three digits random so that two brokers seldom agree. */
export class Epochs {
  readonly #now: () => number
  readonly #random: () => number
  #last = 0

  constructor(now: () => number, random: () => number) {
    this.#now = now
    this.#random = random
  }

  next(): number {
    this.#last = Math.max(this.#last + 1, this.#now() * 1000 + Math.floor(this.#random() * 1000))
    return this.#last
  }
}
