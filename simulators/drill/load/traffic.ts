import { addressOf } from '../../../processor/contract/address.ts'
import { ConfigurationError } from '../../../processor/contract/errors.ts'
import { pause } from '../../../processor/runtime/pause.ts'
import type { Ledger } from '../../load/ledger.ts'
import { drain, openConnections, publish } from '../../load/load.ts'
import type { LoadConnection } from '../../load/load-connection.ts'
import { loadDeviceId } from '../../load/load-packet.ts'
import { seededRandom } from '../../random.ts'
import { hotFleet } from './hot.ts'

export interface TrafficOptions {
  readonly host: string
  readonly port: number
  readonly prefix: string
  readonly devices: number
  /** Counts the fleet's devices first. */
  readonly ledger: Ledger
  /** Messages a second over all devices. */
  readonly rate: number
  readonly seed: number
  /** This share of the messages goes to one of the `partitions`; undefined: they are spread. */
  readonly hot: number | undefined
  readonly partitions: number
}

const MAX_CONNECTIONS = 100
/** Messages under way per connection. */
const WINDOW = 64
const FIRST_CONNECT_MS = 10_000
const LOOK_MS = 20

export interface Connections {
  readonly all: number
  /** Of these: how many have a session with the broker. */
  readonly open: number
}

/** The fleet of a drill: gateways that each carry their share of the devices, and lose and resend as gateways do. */
export class Traffic implements AsyncDisposable {
  readonly ledger: Ledger
  readonly ids: readonly string[]
  readonly #connections: readonly LoadConnection[]
  readonly #options: TrafficOptions
  readonly #ending = new AbortController()
  #started = false
  #publishing: Promise<void> = Promise.resolve()

  private constructor(options: TrafficOptions) {
    const { devices, prefix, host, port, seed, hot, partitions } = options
    const random = seededRandom(seed, 1)
    this.#options = options
    this.ledger = options.ledger
    this.ids = Array.from({ length: devices }, (_, device) => loadDeviceId(prefix, device))
    const spread = { connections: Math.min(devices, MAX_CONNECTIONS), choose: undefined }
    const { connections, choose } =
      hot === undefined ? spread : hotFleet(this.ids, partitions, hot, MAX_CONNECTIONS, random)
    const senders = { host, port, prefix, connections, devices, window: WINDOW, reconnect: random, choose }
    this.#connections = openConnections(senders, Infinity, this.ledger)
  }

  /** Resolves when every connection is made. Rejects with ConfigurationError PORT_UNAVAILABLE when one cannot be. */
  static async open(options: TrafficOptions, signal: AbortSignal): Promise<Traffic> {
    const traffic = new Traffic(options)
    const late = new AbortController()
    const opened = Promise.all(traffic.#connections.map((connection) => connection.opened)).then(() => late.abort())
    await Promise.race([opened, pause(FIRST_CONNECT_MS, AbortSignal.any([signal, late.signal]))])
    if (traffic.#connections.every(({ connected }) => connected)) return traffic
    await traffic[Symbol.asyncDispose]()
    signal.throwIfAborted()
    const { host, port } = options
    throw new ConfigurationError(
      'PORT_UNAVAILABLE',
      `no MQTT broker takes connections at ${addressOf({ host, port })}: start one, or name another by --mqtt`,
    )
  }

  /** Publishes from now on, until `stop`. */
  start(): void {
    this.#started = true
    const signal = AbortSignal.any([this.#ending.signal, this.ledger.failure.signal])
    this.#publishing = publish({ ratePerSecond: this.#options.rate, seconds: Infinity }, this.#connections, signal)
  }

  storm(): void {
    for (const connection of this.#connections) connection.drop()
  }

  /** The load is on. */
  get publishing(): boolean {
    return this.#started && !this.#ending.signal.aborted
  }

  /** Messages of the fleet: the ledger counts those of others too. */
  get sent(): number {
    return this.ledger.publishedBy(this.ids.length)
  }

  /** Of each connection, how long it has had no session with the broker, ms; 0: it has one. */
  get absences(): number[] {
    const now = performance.now()
    return this.#connections.map(({ absentSince = now }) => now - absentSince)
  }

  get connections(): Connections {
    return { all: this.#connections.length, open: this.#connections.filter(({ connected }) => connected).length }
  }

  /** Resolves when every connection has a session, the time is over, or `signal` aborts. */
  async whole(withinMs: number, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + withinMs
    const isWhole = (): boolean => this.#connections.every(({ connected }) => connected)
    while (!isWhole() && performance.now() < deadline && !signal.aborted) await pause(LOOK_MS, signal)
  }

  get underWay(): number {
    return this.#connections.reduce((sum, connection) => sum + connection.underWay, 0)
  }

  /** Publishes no more, and waits for what is under way: at most `withinMs`. Rejects when the load itself failed. */
  async stop(withinMs: number): Promise<void> {
    this.#ending.abort()
    await this.#publishing
    const { signal } = this.ledger.failure
    for (const connection of this.#connections) connection.stop()
    await drain(this.#connections, signal, withinMs)
    signal.throwIfAborted()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort()
    await this.#publishing
    for (const connection of this.#connections) connection.destroy()
  }
}
