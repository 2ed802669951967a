import { ownDeviceId } from '../../processor/contract/json.ts'
import { connectivityRecord, isDeviceId } from '../../processor/contract/record.ts'
import type { ConnectivityReason, ConnectivityState } from '../../processor/contract/status.ts'
import type { Appender, Batcher, Hold } from '../append/batcher.ts'
import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'
import type { Session } from './session.ts'

/** End records in flight: a gateway's ten thousand devices must not fill an append. */
const MAX_ENDS = 500
/** Pause before end records are offered again to a log that did not take them, ms. */
const RETRY_MS = 1_000
/** Estimated memory of a connectivity record. */
const RECORD_BYTES = 256

/** The end of a session for one of its devices. */
interface End {
  readonly deviceId: string
  readonly session: Session
  readonly state: ConnectivityState
  readonly reason: ConnectivityReason
  /** Epoch ms. */
  readonly at: number
}

/**
 * Turns sessions into connectivity records. Ends are queued, and appended until the log has them: a device that vanished
 * while the log was down must not stay online for good. Ends of a partition that cannot be written wait apart. The queue
 * is bounded by `maxDevices`: a device counts until its end is in the log.
 */
export class Presence {
  readonly #appender: Appender
  readonly #limits: Limits
  readonly #metrics: IngestMetrics
  readonly #now: () => number
  readonly #queue: Iterator<End>[] = []
  #underWay = 0
  /** Ends that the log does not take now, by partition. */
  readonly #postponed = new Map<Batcher, End[]>()
  #retry: NodeJS.Timeout | undefined
  #resting = false
  #stopped = false
  readonly #idle: (() => void)[] = []

  constructor(appender: Appender, limits: Limits, metrics: IngestMetrics, now: () => number) {
    this.#appender = appender
    this.#limits = limits
    this.#metrics = metrics
    this.#now = now
  }

  /** A client id that is a device id speaks for that device from CONNECT on. */
  begin(session: Session): void {
    // aedes registers a client when the one that it takes over has gone; it may have gone itself by then.
    if (session.ended || !isDeviceId(session.clientId) || !this.#track()) return
    session.ownDevice = session.clientId
    this.#online(session, session.clientId)
  }

  /**
   * A message for `deviceId` was added. `online` follows the first message of a session, as only telemetry creates a status.
   * The message may be unusable, or the device be deleted later, so `online` comes again with the 4th, 16th, 64th… message.
   */
  spoke(session: Session, deviceId: string): void {
    if (session.ended) return
    const messages = (session.devices.get(deviceId) ?? 0) + 1
    if (messages > 1) {
      session.devices.set(deviceId, messages)
      if (isPowerOfFour(messages)) this.#online(session, deviceId)
      return
    }
    session.account?.pace?.newDevice()
    if (session.devices.size >= this.#limits.maxDevicesPerConnection) {
      this.#metrics.boundHits.add('devices of a connection')
      return
    }
    if (session.ownDevice !== deviceId && !this.#track()) return
    session.devices.set(ownDeviceId(deviceId), 1)
    this.#online(session, deviceId)
  }

  /** The session is over for each of its devices. */
  end(session: Session, state: ConnectivityState, reason: ConnectivityReason): void {
    if (session.ended) return
    session.ended = true
    const { ownDevice } = session
    if (ownDevice !== undefined && !session.devices.has(ownDevice)) session.devices.set(ownDevice, 0)
    if (session.devices.size === 0) return
    const at = this.#now()
    this.#queue.push(session.devices.keys().map((deviceId) => ({ deviceId, session, state, reason, at })))
    this.#proceed()
  }

  /** Resolves when every end is in the log. */
  async settled(): Promise<void> {
    if (this.#busy) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  /** Gives up; returns the number of devices whose end is not in the log. */
  stop(): number {
    this.#stopped = true
    clearTimeout(this.#retry)
    let left = this.#underWay
    for (const ends of this.#postponed.values()) left += ends.length
    for (const ends of this.#queue) while (!ends.next().done) left++
    return left
  }

  get #busy(): boolean {
    return this.#underWay > 0 || this.#queue.length > 0 || this.#postponed.size > 0
  }

  #track(): boolean {
    if (this.#metrics.trackedDevices >= this.#limits.maxDevices) {
      this.#metrics.boundHits.add('tracked devices')
      return false
    }
    this.#metrics.trackedDevices++
    return true
  }

  #online(session: Session, deviceId: string): void {
    const connection = { state: 'online', reason: 'connected', session: session.epoch } as const
    const record = connectivityRecord(deviceId, connection, this.#now())
    // If the record is lost the session ends: the next one brings it again.
    const hold: Hold = { settle: (error) => error && session.connection.fail('append failed', error.message) }
    this.#appender.of(deviceId).add(record, RECORD_BYTES, hold, 0)
  }

  #proceed(): void {
    if (this.#resting || this.#stopped) return
    for (let postponed = 0; this.#underWay < MAX_ENDS; ) {
      const head = this.#queue[0]
      if (head === undefined) break
      const next = head.next()
      if (next.done) {
        this.#queue.shift()
      } else if (this.#appender.faultOf(next.value.deviceId) === undefined) {
        this.#append(next.value)
      } else {
        this.#postpone(next.value)
        if (++postponed === MAX_ENDS) return this.#rest()
      }
    }
    if (!this.#busy) for (const resolve of this.#idle.splice(0)) resolve()
  }

  /** Lets the event loop turn. */
  #rest(): void {
    this.#resting = true
    setImmediate(() => {
      this.#resting = false
      this.#proceed()
    })
  }

  #append(end: End): void {
    const { deviceId, session, state, reason, at } = end
    this.#underWay++
    const settle = (error: Error | null): void => {
      this.#underWay--
      if (error === null) {
        this.#metrics.trackedDevices--
        this.#resume(this.#appender.of(deviceId))
      } else {
        this.#postpone(end)
      }
      this.#proceed()
    }
    const record = connectivityRecord(deviceId, { state, reason, session: session.epoch }, at)
    this.#appender.of(deviceId).add(record, RECORD_BYTES, { settle }, 0)
  }

  #postpone(end: End): void {
    const batcher = this.#appender.of(end.deviceId)
    const ends = this.#postponed.get(batcher)
    if (ends === undefined) this.#postponed.set(batcher, [end])
    else ends.push(end)
    if (!this.#stopped) this.#retry ??= setTimeout(() => this.#offerAgain(), RETRY_MS)
  }

  /** Offers one end of each partition; the others follow when the log has taken it. */
  #offerAgain(): void {
    this.#retry = undefined
    for (const [batcher, ends] of this.#postponed) {
      const end = ends.at(-1) as End
      if (this.#appender.faultOf(end.deviceId) !== undefined) continue
      ends.pop()
      if (ends.length === 0) this.#postponed.delete(batcher)
      this.#append(end)
    }
    if (this.#postponed.size > 0) this.#retry = setTimeout(() => this.#offerAgain(), RETRY_MS)
  }

  /** The partition takes records again. */
  #resume(batcher: Batcher): void {
    const ends = this.#postponed.get(batcher)
    if (ends === undefined) return
    this.#postponed.delete(batcher)
    this.#queue.push(ends.values())
  }
}

function isPowerOfFour(n: number): boolean {
  return (n & (n - 1)) === 0 && n % 3 === 1
}
