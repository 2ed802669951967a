import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'
import { addressOf } from '../../processor/contract/address.ts'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { pause } from '../../processor/runtime/pause.ts'
import { seededRandom } from '../random.ts'
import { type Act, type Behaviour, Device, WELL_BEHAVED, Zipf } from './behaviour.ts'
import { type Outgoing, type QoS, Session, type SessionObserver } from './session.ts'

/** Times at which many things are due. */
interface Schedule {
  /** When each thing is due, by index; ms after the start. */
  readonly offsets: readonly number[]
  /** Each is due again after this many milliseconds; undefined: once. */
  readonly periodMs: number | undefined
  /** Nothing is due any more after this many milliseconds. */
  readonly untilMs: number
}

/** Things that are due within these milliseconds are done together. */
const GRAIN_MS = 2
/** Longest single wait, ms. */
const MAX_WAIT_MS = 1_000
/** Most things in one turn of the event loop, so that a schedule which is late still reads its sockets. */
const MAX_PER_TURN = 500

/**
 * Calls `due` with the index of each thing at its time, until all are done, the end is reached or `signal` aborts. All have
 * one period, so a cursor over the sorted offsets is the whole queue. A late schedule catches up.
 */
async function runSchedule(
  schedule: Schedule,
  due: (index: number) => void,
  now: () => number,
  signal: AbortSignal,
): Promise<void> {
  const { offsets, periodMs, untilMs } = schedule
  const order = offsets.map((_, index) => index).sort((a, b) => (offsets[a] as number) - (offsets[b] as number))
  if (order.length === 0) return
  const start = now()
  let round = 0
  let cursor = 0
  for (let turn = 0; !signal.aborted; ) {
    const index = order[cursor] as number
    const at = (offsets[index] as number) + round * (periodMs ?? 0)
    if (at >= untilMs) return
    const early = at - (now() - start)
    if (early > 0 || turn === MAX_PER_TURN) {
      turn = 0
      await pause(Math.min(Math.max(early, GRAIN_MS), MAX_WAIT_MS), signal)
      continue
    }
    due(index)
    turn++
    cursor++
    if (cursor === order.length) {
      if (periodMs === undefined) return
      cursor = 0
      round++
    }
  }
}

export interface FleetOptions {
  readonly host: string
  readonly port: number
  readonly devices: number
  /** Messages per second of each device; 1 when not given. */
  readonly ratePerSecond?: number
  /** How long it publishes once all have begun to connect; when not given, until it is stopped. */
  readonly seconds?: number
  /** Decides ids, readings and the times in the period; 1 when not given. */
  readonly seed?: number
  /** 1 when not given. */
  readonly qos?: QoS
  /** All well-behaved when not given. */
  readonly behaviour?: Behaviour
  /** Messages a device keeps while it cannot send, beyond which it drops; 64 when not given. */
  readonly maxPending?: number
}

export interface FleetCounts {
  /** Connections now: one per device, or one per gateway. */
  readonly connected: number
  /** Payloads that the devices had to send, repeats on a new connection not counted. */
  readonly published: number
  readonly acknowledged: number
  /** Refused by a device whose memory was full. */
  readonly dropped: number
  /** Sent again after a reconnect. */
  readonly resent: number
  /** Published payloads that nobody can read. */
  readonly mistakes: number
  /** Clean disconnects of devices that sleep. */
  readonly slept: number
  /** Connections that broke, and attempts that failed. */
  readonly disconnects: number
  readonly lastError: string | undefined
}

/** A fleet comes up slowly: it is not to measure a storm of connects. */
const CONNECTS_PER_SECOND = 500
/** How long the first device may take before the broker counts as unreachable. */
const FIRST_CONNECT_MS = 5_000
/** How long acknowledgements are awaited after the last message. */
const DRAIN_MS = 5_000
const BACK_OFF_MAX_MS = 15_000
/** Messages that a gateway keeps for each further device. */
const MAX_PENDING_BEHIND_GATEWAY = 16
/** Connections from one address: it has about 28,000 ports towards one broker. */
const CONNECTIONS_PER_ADDRESS = 20_000
/** Longer latencies count as one minute. */
const MAX_LATENCY_US = 60_000_000

const DEFAULTS = {
  ratePerSecond: 1,
  seconds: Infinity,
  seed: 1,
  qos: 1,
  behaviour: WELL_BEHAVED,
  maxPending: 64,
} as const

/** Messages of one device, without repeats and without payloads that nobody can read. */
export interface Delivered {
  readonly sent: number
  readonly acknowledged: number
}

/** Seeded devices that publish, over one MQTT connection each, or behind gateways. */
export class Fleet implements AsyncDisposable, SessionObserver {
  /** Time to acknowledgement, in µs. */
  readonly latency: RecordableHistogram = createHistogram({ lowest: 1, highest: MAX_LATENCY_US, figures: 3 })
  readonly #options: Required<FleetOptions>
  readonly #stop = new AbortController()
  #finished: Promise<void> = Promise.resolve()
  readonly #now: () => number
  readonly #devices: Device[] = []
  readonly #sessions: Session[] = []
  readonly #zipf: Zipf | undefined
  readonly #draw: () => number
  /** Messages acknowledged, by device. */
  readonly #delivered: Uint32Array
  #connected = 0
  #mistakes = 0
  #slept = 0
  #published = 0
  #acknowledged = 0
  #dropped = 0
  #resent = 0
  #disconnects = 0
  #lastError: Error | undefined
  #publishingSeconds = 0
  /** Called at each acknowledgement, connect and disconnect while `#until` waits. */
  #changed: (() => void) | undefined

  private constructor(options: Required<FleetOptions>, now: () => number) {
    this.#options = options
    this.#now = now
    const { seed, devices, behaviour } = options
    for (let index = 0; index < devices; index++) this.#devices.push(new Device(seed, index, behaviour))
    for (let at = 0; at * behaviour.gateway < devices; at++) this.#sessions.push(this.#session(at))
    this.#draw = seededRandom(seed, devices + 1)
    this.#zipf = behaviour.hot === 0 ? undefined : new Zipf(devices, behaviour.hot, this.#draw)
    this.#delivered = new Uint32Array(devices)
  }

  #session(at: number): Session {
    const { host, port, seed, qos, behaviour, maxPending } = this.#options
    const { gateway } = behaviour
    const device = this.#devices[at * gateway] as Device
    const { random, manners, topic } = device
    const first = at < CONNECTIONS_PER_ADDRESS
    return new Session(
      {
        host,
        port,
        qos,
        id: gateway === 1 ? device.id : `gateway-${seed}-${String(at + 1).padStart(5, '0')}`,
        localAddress: first ? undefined : `127.0.0.${1 + Math.floor(at / CONNECTIONS_PER_ADDRESS)}`,
        will: manners.hasWill ? { topic: `${topic}/lastWill`, payload: '"connection lost"' } : undefined,
        maxPending: maxPending + (gateway - 1) * MAX_PENDING_BEHIND_GATEWAY,
        maxBackOffMs: BACK_OFF_MAX_MS,
        random,
        now: () => performance.now(),
      },
      this,
    )
  }

  /**
   * Resolves when the first device is connected. Rejects with ConfigurationError PORT_UNAVAILABLE when it cannot be.
   * `now` gives the epoch ms the devices put in their messages.
   */
  static async open(options: FleetOptions, now: () => number): Promise<Fleet> {
    const fleet = new Fleet({ ...DEFAULTS, ...options }, now)
    try {
      await fleet.#connectFirst()
    } catch (error) {
      await fleet[Symbol.asyncDispose]()
      throw error
    }
    fleet.#finished = fleet.#run(fleet.#stop.signal)
    return fleet
  }

  /** Seconds for which it published, without connecting and draining; 0 until then. */
  get publishingSeconds(): number {
    return this.#publishingSeconds
  }

  /** Resolves when the fleet has stopped, and the last messages are acknowledged or given up. */
  get finished(): Promise<void> {
    return this.#finished
  }

  /** In the order of their index. */
  get deviceIds(): string[] {
    return this.#devices.map((device) => device.id)
  }

  /** In the order of the devices' index. */
  get delivered(): Delivered[] {
    return this.#devices.map((device, i) => ({ sent: device.messages, acknowledged: this.#delivered[i] as number }))
  }

  get counts(): FleetCounts {
    return {
      connected: this.#connected,
      published: this.#published,
      acknowledged: this.#acknowledged,
      dropped: this.#dropped,
      resent: this.#resent,
      mistakes: this.#mistakes,
      slept: this.#slept,
      disconnects: this.#disconnects,
      lastError: this.#lastError?.message,
    }
  }

  /** Publishes no more; `finished` follows. */
  stop(): void {
    this.#stop.abort()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop()
    await this.#finished
    await Promise.all(this.#sessions.map((session) => session.end()))
    this.#connected = 0
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { seed, devices, ratePerSecond, seconds } = this.#options
    const random = seededRandom(seed, devices)
    const ramp = this.#sessions.map((_, index) => ((index + random()) * 1000) / CONNECTS_PER_SECOND)
    const connect = (index: number): void => this.#sessions[index]?.connect()
    await runSchedule({ offsets: ramp, periodMs: undefined, untilMs: Infinity }, connect, this.#now, signal)
    const periodMs = 1000 / ratePerSecond
    const offsets = this.#devices.map((device) => device.phase * periodMs)
    const publish = (index: number): void => this.#publish(this.#zipf?.pick(this.#draw()) ?? index)
    const from = this.#now()
    await runSchedule({ offsets, periodMs, untilMs: seconds * 1000 }, publish, this.#now, signal)
    this.#publishingSeconds = (this.#now() - from) / 1000
    for (const [index, { manners }] of this.#devices.entries()) this.#perform(index, manners.rest())
    await this.#until(DRAIN_MS, () => this.#acknowledged + this.#dropped === this.#published)
  }

  connected(): void {
    this.#connected++
    this.#changed?.()
  }

  disconnected(established: boolean, error: Error | undefined): void {
    if (established) this.#connected--
    this.#disconnects++
    if (error !== undefined) this.#lastError = error
    this.#changed?.()
  }

  slept(): void {
    this.#connected--
    this.#slept++
    this.#changed?.()
  }

  acknowledged({ device, messages }: Outgoing, ms: number): void {
    this.#acknowledged++
    this.#delivered[device] = (this.#delivered[device] as number) + messages
    this.latency.record(Math.min(Math.max(1, Math.round(ms * 1000)), MAX_LATENCY_US))
    this.#changed?.()
  }

  resent(): void {
    this.#resent++
  }

  #publish(index: number): void {
    const device = this.#devices[index] as Device
    this.#perform(index, device.next(this.#now(), 1 / this.#options.ratePerSecond))
  }

  #perform(index: number, acts: readonly Act[]): void {
    const { topic } = this.#devices[index] as Device
    const session = this.#sessions[Math.floor(index / this.#options.behaviour.gateway)] as Session
    for (const act of acts) {
      if (act.kind === 'drop') session.drop()
      else if (act.kind === 'sleep') session.sleep()
      else {
        this.#published++
        if (act.messages === 0) this.#mistakes++
        const messages = act.repeated ? 0 : act.messages
        if (!session.publish({ device: index, topic, payload: act.payload, messages })) this.#dropped++
      }
    }
  }

  async #connectFirst(): Promise<void> {
    this.#sessions[0]?.connect()
    await this.#until(FIRST_CONNECT_MS, () => this.#connected > 0 || this.#disconnects > 0)
    if (this.#connected > 0) return
    const { host, port } = this.#options
    const why = this.#disconnects > 0 ? describe(this.#lastError) : `no CONNACK within ${FIRST_CONNECT_MS / 1000} s`
    throw new ConfigurationError(
      'PORT_UNAVAILABLE',
      `no MQTT broker answers at ${addressOf({ host, port })} (${why}): start one with "npm start", or name another by --host and --port`,
      this.#lastError,
    )
  }

  /** Resolves when `condition` holds, at the latest after `ms`. */
  async #until(ms: number, condition: () => boolean): Promise<void> {
    if (condition()) return
    const reached = new AbortController()
    this.#changed = () => {
      if (condition()) reached.abort()
    }
    await pause(ms, reached.signal)
    this.#changed = undefined
  }
}

function describe(error: Error | undefined): string {
  if (error === undefined) return 'it closed the connection'
  return (error as NodeJS.ErrnoException).code ?? error.message
}
