import type { Status } from '../../../processor/contract/status.ts'
import { pause } from '../../../processor/runtime/pause.ts'
import { Session } from '../../fleet/session.ts'
import type { Ledger } from '../../load/ledger.ts'
import { loadDeviceId } from '../../load/load-connection.ts'
import { type Random, seededRandom } from '../../random.ts'
import { readApi } from '../checks/copies.ts'
import type { ApiAddress } from '../stage/stage.ts'

/** How a visitor's last session ends. */
const FAREWELLS = ['stays', 'disconnects', 'is cut off', 'is taken over'] as const
export type Farewell = (typeof FAREWELLS)[number]

/** The status after each farewell: MQTT 3.1.1, 3.1.2.5 and 3.14.4 say when a will is published. */
const AFTER = {
  stays: { state: 'online', reason: 'connected', will: false },
  disconnects: { state: 'offline', reason: 'client disconnect', will: false },
  'is cut off': { state: 'offline', reason: 'connection lost', will: true },
  // The session that takes over is the newer one: the end of the older does not make the device offline.
  'is taken over': { state: 'online', reason: 'connected', will: true },
} as const

export interface VisitorReport {
  readonly id: string
  readonly farewell: Farewell
  /** It completed its farewell. */
  readonly left: boolean
  /** Sessions before the last one that ended without DISCONNECT, or could not be had. */
  readonly lost: number
  /** Messages that it sent again on a new session. */
  readonly resent: number
}

/** Values of a visitor's wills: that of its last session differs from the earlier ones. */
export const LAST_WILL = 'last'
const WILL = 'will'
const EARLIER_WILL = 'earlier'

const MAX_VISITORS = 24
/** Pause of a visitor between two messages, ms. */
const PAUSE_MS = 250
const LOOK_MS = 20
/** Shares of the messages after which the connection is lost, or ends with DISCONNECT. */
const LOST_SHARE = 0.25
const SLEEP_SHARE = 0.25
/** A visitor has one message under way, so this is never reached. */
const MAX_PENDING = 4
const BACK_OFF_MAX_MS = 2_000

export interface VisitorsOptions {
  readonly mqtt: { readonly host: string; readonly port: number }
  readonly prefix: string
  /** Devices of the fleet; the visitors follow them in the ledger. */
  readonly devices: number
  readonly ledger: Ledger
  readonly seed: number
  /** All connections of a device reach one broker, which closes the older one when the device connects again. */
  readonly oneBroker: boolean
}

/** How many visitors a fleet of so many devices has. */
export function visitorsOf(devices: number): number {
  return Math.min(devices, MAX_VISITORS)
}

/**
 * Visitors: devices that come and go beside the fleet, each on its own connection, with a will and QoS 2. At the end each
 * leaves in one of the ways that MQTT knows, so that connectivity and wills can be judged.
 */
export class Visitors implements AsyncDisposable {
  readonly ids: readonly string[]
  readonly #visitors: readonly Visitor[]

  constructor(options: VisitorsOptions) {
    const { devices, prefix, seed, oneBroker } = options
    const ways = oneBroker ? FAREWELLS : FAREWELLS.filter((farewell) => farewell !== 'is taken over')
    this.#visitors = Array.from({ length: visitorsOf(devices) }, (_, index) => {
      const device = devices + index
      const farewell = ways[index % ways.length] as Farewell
      return new Visitor(options, loadDeviceId(prefix, device), device, farewell, seededRandom(~seed, device))
    })
    this.ids = this.#visitors.map(({ id }) => id)
  }

  get report(): VisitorReport[] {
    return this.#visitors.map(({ id, farewell, left, lost, resent }) => ({ id, farewell, left, lost, resent }))
  }

  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#visitors.map((visitor) => visitor.run(signal)))
  }

  /** Each visitor leaves. Resolves when the API shows it, the time is over, or `signal` aborts. */
  async leave(api: ApiAddress, withinMs: number, signal: AbortSignal): Promise<void> {
    const within = AbortSignal.any([signal, AbortSignal.timeout(withinMs)])
    await Promise.all(this.#visitors.map((visitor) => visitor.leave(within)))
    while (!within.aborted) {
      // Readers report an API that does not answer.
      const answers = await readApi(api, this.ids).catch(() => undefined)
      if (this.report.every((visitor) => unlike(visitor, answers?.get(visitor.id)) === undefined)) return
      await pause(LOOK_MS, within)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#visitors.map((visitor) => visitor.end()))
  }
}

/** How a visitor's status contradicts its farewell, in words; undefined: it does not. */
export function unlike(
  { farewell, left }: Pick<VisitorReport, 'farewell' | 'left'>,
  status: Pick<Status, 'connectivity' | 'reported'> | undefined,
): string | undefined {
  if (!left) return `it never got to the end, at which it ${farewell}`
  if (status === undefined) return `it ${farewell}, and nobody knows it`
  const { state, reason, will } = AFTER[farewell]
  const { connectivity, reported } = status
  if (connectivity.state !== state || connectivity.reason !== reason)
    return `it ${farewell}, and is ${connectivity.state} (${connectivity.reason}), not ${state} (${reason})`
  const value = reported[WILL]?.value
  if ((value === LAST_WILL) !== will)
    return `it ${farewell}, so its last will is ${will ? '' : 'not '}due; its status has ${JSON.stringify(value)}`
  return undefined
}

/** The will in a visitor's payload; undefined: the payload is no will. */
export function willIn(payload: unknown): string | undefined {
  const { values } = Object(payload) as { values?: Record<string, unknown> }
  const will = values?.[WILL]
  return typeof will === 'string' ? will : undefined
}

class Visitor {
  readonly id: string
  readonly farewell: Farewell
  readonly #options: VisitorsOptions
  readonly #device: number
  readonly #topic: string
  readonly #random: Random
  #session: Session
  /** The session that a new one of the same device is to end. */
  #older: Session | undefined
  /** Number of its last message, and whether it waits for its acknowledgement. */
  #said = 0
  #underWay = false
  #leaving = false
  left = false
  lost = 0
  resent = 0

  constructor(options: VisitorsOptions, id: string, device: number, farewell: Farewell, random: Random) {
    this.id = id
    this.farewell = farewell
    this.#options = options
    this.#device = device
    this.#topic = `devices/${id}/telemetry`
    this.#random = random
    this.#session = this.#open(EARLIER_WILL)
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#session.connect()
    await pause(this.#random() * PAUSE_MS, signal)
    while (!signal.aborted) {
      await this.#say(signal)
      if (signal.aborted) return
      const turn = this.#random()
      if (turn < LOST_SHARE) this.#session.drop()
      else if (turn < LOST_SHARE + SLEEP_SHARE) this.#session.sleep()
      await pause(PAUSE_MS, signal)
    }
  }

  async leave(signal: AbortSignal): Promise<void> {
    await until(() => !this.#underWay, signal)
    // An acknowledgement shows that it has a session, which DISCONNECT ends; the will of an unanswered CONNECT is uncertain.
    await this.#say(signal)
    if (signal.aborted) return
    await this.#session.end()
    this.#leaving = true
    this.#session = this.#open(LAST_WILL)
    this.#session.connect()
    await this.#say(signal)
    if (signal.aborted) return
    if (this.farewell === 'disconnects') await this.#session.end()
    if (this.farewell === 'is cut off') {
      this.#session.drop()
      await this.#session.end()
    }
    if (this.farewell === 'is taken over') {
      this.#older = this.#session
      this.#session = this.#open(EARLIER_WILL)
      this.#session.connect()
      await this.#say(signal)
    }
    this.left = !signal.aborted
  }

  async end(): Promise<void> {
    await Promise.all([this.#older?.end(), this.#session.end()])
  }

  #open(will: string): Session {
    const { mqtt } = this.#options
    return new Session(
      {
        ...mqtt,
        id: this.id,
        qos: 2,
        localAddress: undefined,
        will: { topic: this.#topic, payload: JSON.stringify({ values: { [WILL]: will } }) },
        maxPending: MAX_PENDING,
        maxBackOffMs: BACK_OFF_MAX_MS,
        random: this.#random,
        now: () => performance.now(),
      },
      {
        connected: () => undefined,
        disconnected: () => this.#disconnected(),
        acknowledged: () => this.#acknowledged(),
        resent: () => this.#sentAgain(),
        slept: () => undefined,
      },
    )
  }

  #disconnected(): void {
    // A broker may have taken a CONNECT, and its will, without answering it.
    if (!this.#leaving) this.lost++
    // The older session would reconnect, and end the one that took over from it.
    void this.#older?.end()
  }

  #acknowledged(): void {
    this.#options.ledger.acknowledged(this.#device, this.#said)
    this.#underWay = false
  }

  #sentAgain(): void {
    this.resent++
    this.#options.ledger.resent(1)
  }

  /** One message; resolves when it is acknowledged, or `signal` aborts. */
  async #say(signal: AbortSignal): Promise<void> {
    const seq = this.#options.ledger.next(this.#device)
    const payload = JSON.stringify({ ts: Date.now(), seq, values: { visit: seq } })
    this.#said = seq
    this.#underWay = true
    this.#session.publish({ device: this.#device, topic: this.#topic, payload, messages: 1 })
    await until(() => !this.#underWay, signal)
  }
}

async function until(met: () => boolean, signal: AbortSignal): Promise<void> {
  while (!met() && !signal.aborted) await pause(LOOK_MS, signal)
}
