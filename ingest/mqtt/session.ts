import { Acks } from '../append/acks.ts'
import type { Connection } from '../connection/connection.ts'
import type { IngestMetrics } from '../metrics.ts'
import { Filters } from './topics.ts'

/** One MQTT connection from its CONNECT to its end, as the devices it speaks for see it. */
export class Session {
  /** Grows from session to session of one process, and, as clocks do, over restarts. */
  readonly epoch: number
  /** As CONNECT gave it: empty when the broker chose one. */
  readonly clientId: string
  readonly connection: Connection
  readonly acks: Acks
  /** The device the client id names, known to be connected before it publishes. */
  ownDevice: string | undefined
  /** Devices published for, and how many messages. */
  readonly devices = new Map<string, number>()
  /** Subscribed to. */
  readonly filters = new Filters()
  /** Bytes of its will. */
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

/** Session epochs: microseconds of the clock, the last three digits by chance so that two brokers seldom agree. */
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
