import { addressOf } from '../../../processor/contract/address.ts'
import { ConfigurationError } from '../../../processor/contract/errors.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { pause } from '../../../processor/runtime/pause.ts'
import type { Ledger } from '../../load/ledger.ts'
import { drain, openConnections, publish } from '../../load/load.ts'
import { type LoadConnection, loadDeviceId } from '../../load/load-connection.ts'
import { type Random, seededRandom } from '../../random.ts'
import type { Mark } from '../report/journal.ts'

/** How a fleet shares its connections, so that most messages go to one partition. */
export interface HotFleet {
  /** Device n speaks over connection n modulo this. */
  readonly connections: number
  /** Index of the connection's device that sends next. */
  readonly choose: (connection: number) => number
}

/**
 * At least `share` of the messages go to the partition of the first device. A connection sends for its own devices only, so
 * there are only as many connections as can each have a device of that partition.
 */
export function hotFleet(
  ids: readonly string[],
  partitions: number,
  share: number,
  maxConnections: number,
  random: Random,
): HotFleet {
  const partition = partitionOf(ids[0] as string, partitions)
  const hot = ids.flatMap((id, device) => (partitionOf(id, partitions) === partition ? [device] : []))
  let connections = Math.min(ids.length, maxConnections)
  while (new Set(hot.map((device) => device % connections)).size < connections) connections--
  const its = Map.groupBy(hot, (device) => device % connections)
  return {
    connections,
    choose(connection) {
      const among = its.get(connection) as number[]
      if (random() < share) return Math.floor((among[Math.floor(random() * among.length)] as number) / connections)
      return Math.floor(random() * Math.ceil((ids.length - connection) / connections))
    },
  }
}

export interface TrafficOptions {
  readonly host: string
  readonly port: number
  readonly prefix: string
  readonly devices: number
  /** The fleet's devices come first in it. */
  readonly ledger: Ledger
  /** Messages a second over all devices. */
  readonly rate: number
  readonly seed: number
  /** Share of the messages that go to one of the `partitions`; undefined: they are spread. */
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
  /** How many have a session with the broker. */
  readonly open: number
}

/** The fleet of a drill: gateways that each carry their share of the devices, and that reconnect and resend. */
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

  get publishing(): boolean {
    return this.#started && !this.#ending.signal.aborted
  }

  /** Messages of the fleet; the ledger counts those of visitors too. */
  get sent(): number {
    return this.ledger.publishedBy(this.ids.length)
  }

  /** Per connection, for how many milliseconds it has had no session with the broker. */
  get absences(): number[] {
    const now = performance.now()
    return this.#connections.map(({ absentSince = now }) => now - absentSince)
  }

  get connections(): Connections {
    return { all: this.#connections.length, open: this.#connections.filter(({ connected }) => connected).length }
  }

  /** Resolves when every connection has a session, the time is over, or `signal` aborts. */
  async connected(withinMs: number, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + withinMs
    const all = (): boolean => this.#connections.every(({ connected }) => connected)
    while (!all() && performance.now() < deadline && !signal.aborted) await pause(LOOK_MS, signal)
  }

  get underWay(): number {
    return this.#connections.reduce((sum, connection) => sum + connection.underWay, 0)
  }

  /** Publishes no more, and awaits the last acknowledgements. Rejects when they are late, or the load itself failed. */
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

/** Targets between devices and log. Only their disturbance may lock devices out. */
const GATES: ReadonlySet<string> = new Set(['devices', 'ingest', 'kafka', 'tidemark'])
/** Disturbances that are over when they are done. The others last until the next one of the same target. */
const ENDING: ReadonlySet<string> = new Set(['start', 'thaw', 'heal', 'storm'])
/** Time to return after a disturbance, ms: gateways back off for up to 2 s, and ingest finds its log again. */
const RETURN_MS = 5_000
/** Longest time without a session that is no finding, ms: a CONNECT without an answer takes a gateway 10 s. */
export const MAX_ABSENCE_MS = 15_000

/** What the devices sent while nothing kept them from it. */
export interface SendingReport {
  /** Milliseconds of that time, and messages sent in it. */
  readonly ms: number
  readonly sent: number
  /** Connections that had no session for longer than MAX_ABSENCE_MS in one go, and the longest such time, ms. */
  readonly locked: number
  readonly longestMs: number
}

/** The connections at one time. */
export interface SendingLook {
  /** Ms since the drill began. */
  readonly now: number
  readonly publishing: boolean
  /** Messages that the fleet has sent so far; visitors have no rate. */
  readonly sent: number
  /** Per connection, for how many milliseconds it has had no session. */
  readonly absences: readonly number[]
}

/** Watches how much is sent, and which connections cannot get a session, while nothing is disturbed. */
export class SendingWatch {
  readonly #locked = new Set<number>()
  #before: SendingLook | undefined
  #ms = 0
  #sent = 0
  #longestMs = 0

  get report(): SendingReport {
    return { ms: this.#ms, sent: this.#sent, locked: this.#locked.size, longestMs: this.#longestMs }
  }

  look(look: SendingLook, marks: readonly Mark[]): void {
    const { now, publishing, sent, absences } = look
    const before = this.#before
    this.#before = look
    const calm = now - calmSince(marks)
    absences.forEach((absence, connection) => {
      const without = Math.min(absence, calm)
      if (without > this.#longestMs) this.#longestMs = Math.round(without)
      if (without > MAX_ABSENCE_MS) this.#locked.add(connection)
    })
    if (before === undefined || !before.publishing || !publishing || calm < now - before.now) return
    this.#ms += now - before.now
    this.#sent += sent - before.sent
  }
}

/** When devices could send again, ms since the drill began; Infinity: something still keeps them from it. */
function calmSince(marks: readonly Mark[]): number {
  const last = new Map<string, Mark>()
  for (const mark of marks) if (GATES.has(mark.target)) last.set(mark.target, mark)
  let since = 0
  for (const { verb, doneAt } of last.values()) {
    since = Math.max(since, ENDING.has(verb) && doneAt !== undefined ? doneAt + RETURN_MS : Infinity)
  }
  return since
}
