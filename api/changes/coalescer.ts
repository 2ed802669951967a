import type { Offset } from '../../processor/contract/record.ts'
import type { Change } from './change.ts'

/** What is still to be told of a device: what its event takes of its newest change, whose text may be long. */
export interface Pending {
  readonly partition: number
  readonly offset: Offset
  readonly deviceId: string
  readonly number: number | undefined
  /** JSON of a status that satisfies the stream's query; undefined: the client is to have the device no more. */
  readonly text: string | undefined
  readonly deleted: boolean
}

/** What a device without a text takes while it waits, bytes beside its id, about; its event takes fewer. */
const LEAVE_BYTES = 96

/** The changes that wait in one stream: of each device the newest, each told not before the last is `perDeviceMs` old. */
export class Coalescer {
  readonly #perDeviceMs: number
  /** By device, in the order in which they came to wait. */
  readonly #pending = new Map<string, Pending>()
  /** When the devices told of within `perDeviceMs` were told of, oldest first. */
  readonly #told = new Map<string, number>()
  /** Of the statuses that wait, and of the devices whose `leave` does. */
  bytes = 0

  constructor(perDeviceMs: number) {
    this.#perDeviceMs = perDeviceMs
  }

  get size(): number {
    return this.#pending.size
  }

  put(change: Change, matched: boolean): void {
    const { partition, offset, deviceId, number } = change
    const text = matched ? change.text : undefined
    const pending = { partition, offset, deviceId, number, text, deleted: change.text === undefined }
    const before = this.#pending.get(deviceId)
    this.bytes += bytesOf(pending) - (before === undefined ? 0 : bytesOf(before))
    this.#pending.set(deviceId, pending)
  }

  has(deviceId: string): boolean {
    return this.#pending.has(deviceId)
  }

  drop(deviceId: string): void {
    const pending = this.#pending.get(deviceId)
    if (pending === undefined) return
    this.bytes -= bytesOf(pending)
    this.#pending.delete(deviceId)
  }

  clear(): void {
    this.#pending.clear()
    this.#told.clear()
    this.bytes = 0
  }

  /** What may be told now (ms, of a clock that nobody sets), up to about `maxBytes`; it waits no longer. */
  take(now: number, maxBytes: number): Pending[] {
    for (const [deviceId, at] of this.#told) {
      if (at + this.#perDeviceMs > now) break
      this.#told.delete(deviceId)
    }
    const due: Pending[] = []
    let bytes = 0
    for (const [deviceId, pending] of this.#pending) {
      if (bytes >= maxBytes) break
      if (this.#told.has(deviceId)) continue
      bytes += bytesOf(pending)
      due.push(pending)
    }
    for (const { deviceId } of due) this.drop(deviceId)
    return due
  }

  /** An event of the device was written. */
  tell(deviceId: string, now: number): void {
    this.#told.set(deviceId, now)
  }

  /** When the device may be told of; the beginning of time: at once. */
  dueOf(deviceId: string): number {
    return (this.#told.get(deviceId) ?? Number.NEGATIVE_INFINITY) + this.#perDeviceMs
  }

  /** When something that waits may be told; undefined while nothing waits. */
  dueAt(): number | undefined {
    if (this.#pending.size === 0) return undefined
    for (const deviceId of this.#pending.keys()) if (!this.#told.has(deviceId)) return Number.NEGATIVE_INFINITY
    for (const deviceId of this.#told.keys()) if (this.#pending.has(deviceId)) return this.dueOf(deviceId)
    return undefined
  }

  /** Lowers `offsets` of each partition to the first change that waits: who goes on from there misses none. */
  lower(offsets: (Offset | undefined)[]): void {
    for (const { partition, offset } of this.#pending.values()) {
      const lowest = offsets[partition]
      if (lowest !== undefined && offset < lowest) offsets[partition] = offset
    }
  }
}

function bytesOf({ deviceId, text }: Pending): number {
  return text?.length ?? deviceId.length + LEAVE_BYTES
}
