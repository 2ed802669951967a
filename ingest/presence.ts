import type { ConnectivityReason, ConnectivityState } from '../processor/contract/status.ts'
import { connectivityRecord, isDeviceId } from '../processor/contract/telemetry.ts'
import type { Counts } from './counts.ts'
import type { Gather, Hold } from './gather.ts'
import type { Limits } from './limits.ts'
import type { Session } from './session.ts'

/** End records of one batch: a gateway's ten thousand devices must not fill an append. */
const END_BATCH_RECORDS = 500
/** Pause before end records are offered again to a log that did not take them, ms. */
const RETRY_MS = 1_000

/** About what a connectivity record occupies. */
const RECORD_BYTES = 256

interface End {
  readonly session: Session
  readonly devices: IterableIterator<string>
  readonly state: ConnectivityState
  readonly reason: ConnectivityReason
  /** When it was seen, epoch ms. */
  readonly at: number
}

/**
 * Turns sessions into connectivity records. Ends are queued and appended in bounded batches, again and again until the
 * log has them: a device that vanished while the log was down must not stay online for good. What is queued is bounded
 * by the devices tracked, which are counted until their end is in the log.
 */
export class Presence {
  readonly #gather: Gather
  readonly #limits: Limits
  readonly #counts: Counts
  readonly #now: () => number
  readonly #ends: End[] = []
  /** Of the end under way: what is being appended, and the pause before it is tried again. */
  #batch: { readonly deviceId: string; readonly end: End }[] = []
  #retry: NodeJS.Timeout | undefined
  #stopped = false
  readonly #idle: (() => void)[] = []

  constructor(gather: Gather, limits: Limits, counts: Counts, now: () => number) {
    this.#gather = gather
    this.#limits = limits
    this.#counts = counts
    this.#now = now
  }

  /** A client id that is a device id speaks for that device from CONNECT on. */
  begin(session: Session): void {
    if (!isDeviceId(session.clientId) || !this.#track()) return
    session.ownDevice = session.clientId
    this.#online(session, session.clientId)
  }

  /**
   * A message for `deviceId` was added. At a session's first, `online` follows it: the status exists by then, while
   * connections of devices that never reported leave no trace. It exists then unless the message could not be used, or
   * the device is deleted meanwhile, so `online` comes again with the 4th, 16th, 64th… message.
   */
  spoke(session: Session, deviceId: string): void {
    const messages = (session.devices.get(deviceId) ?? 0) + 1
    if (messages > 1) {
      session.devices.set(deviceId, messages)
      if (isPowerOfFour(messages)) this.#online(session, deviceId)
      return
    }
    if (session.ended) return
    if (session.devices.size >= this.#limits.maxDevicesPerConnection) {
      this.#counts.boundHits.add('devices of a connection')
      return
    }
    if (session.ownDevice !== deviceId && !this.#track()) return
    session.devices.set(deviceId, 1)
    this.#online(session, deviceId)
  }

  /** The session is over for each of its devices. */
  end(session: Session, state: ConnectivityState, reason: ConnectivityReason): void {
    if (session.ended) return
    session.ended = true
    const { ownDevice } = session
    if (ownDevice !== undefined && !session.devices.has(ownDevice)) session.devices.set(ownDevice, 0)
    if (session.devices.size === 0) return
    this.#ends.push({ session, devices: session.devices.keys(), state, reason, at: this.#now() })
    if (this.#batch.length === 0) this.#next()
  }

  /** Resolves when every end is in the log. */
  async settled(): Promise<void> {
    if (this.#batch.length > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  /** Gives up what the log has not taken, and says how many devices' ends that are. */
  stop(): number {
    this.#stopped = true
    clearTimeout(this.#retry)
    let left = this.#batch.length
    for (const end of this.#ends) left += [...end.devices].length
    return left
  }

  #track(): boolean {
    if (this.#counts.trackedDevices >= this.#limits.maxDevices) {
      this.#counts.boundHits.add('tracked devices')
      return false
    }
    this.#counts.trackedDevices++
    return true
  }

  #online(session: Session, deviceId: string): void {
    const connection = { state: 'online', reason: 'connected', session: session.epoch } as const
    const record = connectivityRecord(deviceId, connection, this.#now())
    // A record that is lost comes again with the next session, so this one ends.
    const hold: Hold = { settle: (error) => error && session.connection.fail('append failed', error.message) }
    this.#gather.add('telemetry', record, RECORD_BYTES, hold)
  }

  #next(): void {
    while (this.#batch.length < END_BATCH_RECORDS && this.#ends.length > 0) {
      const end = this.#ends[0] as End
      const { value, done } = end.devices.next()
      if (done) this.#ends.shift()
      else this.#batch.push({ deviceId: value, end })
    }
    if (this.#batch.length === 0) for (const resolve of this.#idle.splice(0)) resolve()
    else this.#append()
  }

  #append(): void {
    let waiting = this.#batch.length
    let failed: Error | undefined
    const hold: Hold = {
      settle: (error) => {
        failed ??= error ?? undefined
        if (--waiting > 0) return
        if (failed !== undefined) {
          if (!this.#stopped) this.#retry = setTimeout(() => this.#append(), RETRY_MS)
          return
        }
        this.#counts.trackedDevices -= this.#batch.length
        this.#batch = []
        this.#next()
      },
    }
    for (const { deviceId, end } of this.#batch) {
      const connection = { state: end.state, reason: end.reason, session: end.session.epoch }
      this.#gather.add('telemetry', connectivityRecord(deviceId, connection, end.at), RECORD_BYTES, hold)
    }
  }
}

function isPowerOfFour(n: number): boolean {
  return (n & (n - 1)) === 0 && n % 3 === 1
}
