import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'
import { ConfigurationError } from '../processor/contract/errors.ts'
import { Device } from './device.ts'
import { seededRandom } from './random.ts'
import { pause, runSchedule } from './schedule.ts'
import { type QoS, Session, type SessionObserver } from './session.ts'

export interface FleetOptions {
  readonly host: string
  readonly port: number
  readonly devices: number
  /** Messages per second of each device; 1 when not given. */
  readonly ratePerSecond?: number
  /** For how long it publishes once all have begun to connect; when not given, until it is stopped. */
  readonly seconds?: number
  /** Decides ids, readings and the times in the period; 1 when not given. */
  readonly seed?: number
  /** 1 when not given. */
  readonly qos?: QoS
}

export interface FleetCounts {
  /** Devices with a connection now. */
  readonly connected: number
  /** Messages the devices had to send; each ends up acknowledged or not, however often it is sent. */
  readonly published: number
  readonly acknowledged: number
  /** Refused by a device whose memory was full. */
  readonly dropped: number
  /** Sent again after a reconnect. */
  readonly resent: number
  /** Connections that ended, and attempts that failed. */
  readonly disconnects: number
  readonly lastError: string | undefined
}

/** How fast a fleet comes up: a storm of connects measures the storm. */
const CONNECTS_PER_SECOND = 500
/** How long the first device may take before the broker counts as unreachable. */
const FIRST_CONNECT_MS = 5_000
/** How long acknowledgements are awaited after the last message. */
const DRAIN_MS = 5_000
/** Longest latency told apart, one minute. */
const MAX_LATENCY_US = 60_000_000

/** Seeded devices that publish, over one MQTT connection each. */
export class Fleet implements AsyncDisposable, SessionObserver {
  /** Time to acknowledgement, in µs. */
  readonly latency: RecordableHistogram = createHistogram({ lowest: 1, highest: MAX_LATENCY_US, figures: 3 })
  readonly #options: Required<FleetOptions>
  readonly #stop = new AbortController()
  #finished: Promise<void> = Promise.resolve()
  readonly #now: () => number
  readonly #devices: Device[] = []
  readonly #sessions: Session[] = []
  #connected = 0
  #published = 0
  #acknowledged = 0
  #dropped = 0
  #resent = 0
  #disconnects = 0
  #lastError: Error | undefined
  #publishingSeconds = 0
  /** Called at each acknowledgement, connect and disconnect while somebody waits for one. */
  #changed: (() => void) | undefined

  private constructor(options: Required<FleetOptions>, now: () => number) {
    this.#options = options
    this.#now = now
    const { host, port, seed, qos } = options
    for (let index = 0; index < options.devices; index++) {
      const device = new Device(seed, index)
      const { id, topic, random } = device
      this.#devices.push(device)
      this.#sessions.push(new Session({ host, port, qos, id, topic, random, now: () => performance.now() }, this))
    }
  }

  /**
   * Resolves when the first device is connected. Rejects with ConfigurationError PORT_UNAVAILABLE when it cannot be.
   * `now` gives the epoch ms the devices put in their messages.
   */
  static async open(options: FleetOptions, now: () => number): Promise<Fleet> {
    const fleet = new Fleet({ ratePerSecond: 1, seconds: Infinity, seed: 1, qos: 1, ...options }, now)
    try {
      await fleet.#connectFirst()
    } catch (error) {
      await fleet[Symbol.asyncDispose]()
      throw error
    }
    fleet.#finished = fleet.#run(fleet.#stop.signal)
    return fleet
  }

  /** For how long it published, in seconds, without what came before and after; 0 until then. */
  get publishingSeconds(): number {
    return this.#publishingSeconds
  }

  /** Resolves when the time is over or the fleet was stopped, and what was under way is acknowledged or given up. */
  get finished(): Promise<void> {
    return this.#finished
  }

  /** In the order of their index. */
  get deviceIds(): string[] {
    return this.#devices.map((device) => device.id)
  }

  get counts(): FleetCounts {
    return {
      connected: this.#connected,
      published: this.#published,
      acknowledged: this.#acknowledged,
      dropped: this.#dropped,
      resent: this.#resent,
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
    const publish = (index: number): void => this.#publish(index)
    const from = this.#now()
    await runSchedule({ offsets, periodMs, untilMs: seconds * 1000 }, publish, this.#now, signal)
    this.#publishingSeconds = (this.#now() - from) / 1000
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

  acknowledged(ms: number): void {
    this.#acknowledged++
    this.latency.record(Math.min(Math.max(1, Math.round(ms * 1000)), MAX_LATENCY_US))
    this.#changed?.()
  }

  resent(): void {
    this.#resent++
  }

  #publish(index: number): void {
    const device = this.#devices[index] as Device
    const session = this.#sessions[index] as Session
    this.#published++
    if (!session.publish(device.read(this.#now(), 1 / this.#options.ratePerSecond))) this.#dropped++
  }

  async #connectFirst(): Promise<void> {
    this.#sessions[0]?.connect()
    await this.#until(FIRST_CONNECT_MS, () => this.#connected > 0 || this.#disconnects > 0)
    if (this.#connected > 0) return
    const { host, port } = this.#options
    const why = this.#disconnects > 0 ? describe(this.#lastError) : `no CONNACK within ${FIRST_CONNECT_MS / 1000} s`
    throw new ConfigurationError(
      'PORT_UNAVAILABLE',
      `no MQTT broker answers at ${host}:${port} (${why}): start one with "npm start", or name another by --host and --port`,
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
