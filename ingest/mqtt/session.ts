import { Acks } from '../append/acks.ts'
import type { Connection } from '../connection/connection.ts'
import type { IngestMetrics } from '../metrics.ts'
import { Filters } from './topics.ts'

/** One MQTT connection from CONNECT to its end, and the devices it speaks for. */
export class Session {
  /** Grows from session to session, and over restarts as far as the clock does. */
  readonly epoch: number
  /** The id in CONNECT; empty when the broker chose one. */
  readonly clientId: string
  readonly connection: Connection
  readonly acks: Acks
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
