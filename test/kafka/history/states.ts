import type { Status } from '../../../processor/contract/status.ts'
import type { LogRecord, Offset } from '../../../processor/log/log.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { modelFold, statusText } from '../../status-model.ts'

/** A device after the record at `offset`, and until the next state. */
export interface State {
  readonly offset: Offset
  /** JSON of the status, as clients parse it; undefined: there is no such device. */
  readonly text: string | undefined
  readonly status: Status | undefined
}

/** A write as the log has it. `token`: undefined for a deletion. */
export interface Logged {
  readonly partition: number
  readonly offset: Offset
  readonly deviceId: string
  readonly token: string | undefined
}

const BEFORE_ALL: State = { offset: -1, text: undefined, status: undefined }

/**
 * What the log comes to: every state that each device ever had, and the writes. The log is the one order of all that
 * happened in a partition, and the fold, record by record, the only part of the product that is believed.
 */
export class States {
  readonly writes: Logged[] = []
  readonly #states = new Map<string, State[]>()
  readonly #devices = new Map<number, Set<string>>()
  readonly #folded = new Map<string, Status | undefined>()

  /** Records of a partition come in their order, from its beginning. */
  add(partition: number, record: LogRecord): void {
    const { key, offset } = record
    const decoded = decodeRecord(record)
    if (key === null || decoded.kind === 'rejected') throw new Error(`${partition}-${offset} is no record of ours`)
    if (decoded.kind === 'write') {
      const { write } = decoded
      const token = write.kind === 'deletion' ? undefined : (write.attributes.token as string)
      this.writes.push({ partition, offset, deviceId: key, token })
    }
    const folded = modelFold(this.#folded.get(key), key, decoded)
    this.#folded.set(key, folded)
    const text = folded && JSON.stringify(JSON.parse(statusText(folded)))
    const states = this.of(key)
    if (states.at(-1)?.text === text) return
    states.push({ offset, text, status: text === undefined ? undefined : (JSON.parse(text) as Status) })
    this.#states.set(key, states)
    const devices = this.#devices.get(partition) ?? new Set()
    this.#devices.set(partition, devices.add(key))
  }

  /** In their order; at first there is no such device. */
  of(deviceId: string): State[] {
    return this.#states.get(deviceId) ?? [BEFORE_ALL]
  }

  last(deviceId: string): State {
    return this.of(deviceId).at(-1) as State
  }

  /** Those that ever had a device. */
  partitions(): number[] {
    return [...this.#devices.keys()]
  }

  /** Devices that ever were. */
  devices(partition: number): Iterable<string> {
    return this.#devices.get(partition) ?? []
  }

  allDevices(): Iterable<string> {
    return this.#states.keys()
  }

  /** Place, among all of the device, of its state after all records before `offset`. */
  placeAt(deviceId: string, offset: Offset): number {
    return this.of(deviceId).findLastIndex((state) => state.offset < offset)
  }

  /** After all records before `offset`. */
  at(deviceId: string, offset: Offset): State {
    return this.of(deviceId)[this.placeAt(deviceId, offset)] as State
  }

  /** The states that a device had between two positions, both included. */
  between(deviceId: string, from: Offset, to: Offset): State[] {
    return this.of(deviceId).slice(this.placeAt(deviceId, from), this.placeAt(deviceId, to) + 1)
  }
}
