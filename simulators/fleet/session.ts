import { createConnection } from 'node:net'
import { MqttClient } from 'mqtt'
import { JitteredBackoff, type Random } from '../random.ts'

export type QoS = 0 | 1 | 2

export interface SessionOptions {
  readonly host: string
  readonly port: number
  /** MQTT client id. */
  readonly id: string
  readonly qos: QoS
  /** Source address; undefined: the system chooses. */
  readonly localAddress: string | undefined
  readonly will: { readonly topic: string; readonly payload: string } | undefined
  /** Messages kept while they cannot be sent, those in flight included; at the bound new ones are refused. */
  readonly maxPending: number
  /** Longest wait before an attempt to connect, without the jitter, ms. */
  readonly maxBackOffMs: number
  readonly random: Random
  /** A clock in ms, for latencies. */
  readonly now: () => number
}

/** One observer serves all sessions of a fleet. */
export interface SessionObserver {
  connected(): void
  /** An established connection ended, or an attempt failed. */
  disconnected(established: boolean, error: Error | undefined): void
  /** `ms` from the first send to the acknowledgement (QoS 0: to the socket). */
  acknowledged(message: Outgoing, ms: number): void
  resent(): void
  /** It disconnected cleanly, until it has more to send. */
  slept(): void
}

export interface Outgoing {
  readonly device: number
  readonly topic: string
  readonly payload: string
  /** New messages in the payload: repeats do not count. */
  readonly messages: number
}

interface Message extends Outgoing {
  /** Clock at the first send; undefined before. */
  sentAt: number | undefined
}

/** Messages of one connection under way at once: well below any broker's limit. */
const MAX_IN_FLIGHT = 16

const CONNECT_TIMEOUT_MS = 10_000
const KEEPALIVE_SECONDS = 60
const BACK_OFF_MIN_MS = 250
/** How long a clean DISCONNECT may take before the socket is destroyed. */
const END_MS = 1_000

/**
 * The MQTT session of a device or a gateway. It reconnects with a jittered backoff, and then sends unacknowledged messages
 * again, in the same order and with the same bytes, as a device with a small memory does.
 */
export class Session {
  readonly #options: SessionOptions
  readonly #observer: SessionObserver
  /** In order; the first `#sent` are under way on this connection. */
  readonly #pending: Message[] = []
  #sent = 0
  #client: MqttClient | undefined
  #online = false
  readonly #backoff: JitteredBackoff
  #retry: NodeJS.Timeout | undefined
  #ended = false
  /** It disconnects when all is acknowledged, until it has more to send. */
  #sleepy = false
  #leaving = false

  constructor(options: SessionOptions, observer: SessionObserver) {
    this.#options = options
    this.#observer = observer
    this.#backoff = new JitteredBackoff(BACK_OFF_MIN_MS, options.maxBackOffMs, options.random)
  }

  get online(): boolean {
    return this.#online
  }

  connect(): void {
    if (this.#ended || this.#client !== undefined) return
    const { host, port, id, localAddress, will, qos } = this.#options
    // One client per connection: MQTT.js reconnects at a fixed pace, which would be one wave for the whole fleet.
    const client = new MqttClient(() => createConnection({ host, port, localAddress }), {
      clientId: id,
      clean: true,
      reconnectPeriod: 0,
      connectTimeout: CONNECT_TIMEOUT_MS,
      keepalive: KEEPALIVE_SECONDS,
      ...(will === undefined ? {} : { will: { ...will, payload: Buffer.from(will.payload), qos } }),
    })
    this.#client = client
    let error: Error | undefined
    client.on('error', (cause) => {
      error = cause
    })
    client.on('connect', () => this.#connected())
    client.on('close', () => this.#closed(client, error))
  }

  /** False when too much is pending already: the message is not taken. */
  publish(message: Outgoing): boolean {
    if (this.#ended || this.#pending.length >= this.#options.maxPending) return false
    this.#pending.push({ ...message, sentAt: undefined })
    if (this.#sleepy) this.#wake()
    this.#send()
    return true
  }

  /** Breaks the connection without a DISCONNECT. */
  drop(): void {
    this.#client?.stream.destroy()
  }

  /** Disconnects cleanly when all is acknowledged, until there is more to send. */
  sleep(): void {
    this.#sleepy = true
    this.#rest()
  }

  #wake(): void {
    this.#sleepy = false
    // A client that is still leaving connects again on its close.
    if (this.#client === undefined && this.#retry === undefined) this.connect()
  }

  #rest(): void {
    if (!this.#sleepy || !this.#online || this.#leaving || this.#pending.length > 0) return
    this.#leaving = true
    this.#client?.end()
  }

  /** Sends DISCONNECT when nothing is under way, and closes. The observer hears nothing more. */
  async end(): Promise<void> {
    this.#ended = true
    this.#online = false
    clearTimeout(this.#retry)
    const client = this.#client
    this.#client = undefined
    if (client === undefined) return
    const closed = new Promise<void>((resolve) => client.once('close', () => resolve()))
    const deadline = setTimeout(() => client.stream.destroy(), END_MS)
    client.end(!client.connected || this.#sent > 0)
    if (!client.stream.destroyed) await closed
    clearTimeout(deadline)
  }

  #connected(): void {
    this.#online = true
    this.#backoff.reset()
    this.#observer.connected()
    this.#send()
    this.#rest()
  }

  #closed(client: MqttClient, error: Error | undefined): void {
    if (this.#client !== client) return
    const established = this.#online
    const left = this.#leaving
    this.#client = undefined
    this.#online = false
    this.#leaving = false
    this.#sent = 0
    if (left) {
      this.#observer.slept()
      if (!this.#sleepy) this.connect()
      return
    }
    this.#observer.disconnected(established, error)
    this.#retry = setTimeout(() => {
      this.#retry = undefined
      this.connect()
    }, this.#backoff.next())
  }

  #send(): void {
    const client = this.#client
    if (client === undefined) return
    while (this.#online && !this.#leaving && this.#sent < MAX_IN_FLIGHT && this.#sent < this.#pending.length) {
      const message = this.#pending[this.#sent++] as Message
      if (message.sentAt === undefined) message.sentAt = this.#options.now()
      else this.#observer.resent()
      client.publish(message.topic, message.payload, { qos: this.#options.qos }, (error) => {
        // An error here means that the connection ends, and its close decides what follows.
        if (!error && this.#client === client) this.#acknowledged(message)
      })
    }
  }

  #acknowledged(message: Message): void {
    const index = this.#pending.indexOf(message)
    if (index === -1) return
    this.#pending.splice(index, 1)
    this.#sent--
    this.#observer.acknowledged(message, this.#options.now() - (message.sentAt as number))
    this.#send()
    this.#rest()
  }
}
