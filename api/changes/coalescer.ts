import type { Offset } from '../../processor/contract/record.ts'
import type { Change } from './change.ts'

/** A device that waits to be told of, with the part of its newest change that the event needs. */
export interface Pending {
  readonly partition: number
  readonly offset: Offset
  readonly deviceId: string
  readonly number: number | undefined
  /** JSON of a status that satisfies the stream's query. Undefined: the client must drop the device. */
  readonly text: string | undefined
  readonly deleted: boolean
}

/** Approximate bytes that a waiting `leave` takes, beside the device id. */
const LEAVE_BYTES = 96

/** The changes that wait in one stream: the newest of each device, told at most once in `perDeviceMs`. */
export class Coalescer {
  readonly #perDeviceMs: number
  /** By device, in the order of arrival. */
  readonly #pending = new Map<string, Pending>()
  /** When devices were told of within `perDeviceMs`, oldest first. */
  readonly #told = new Map<string, number>()
  /** Bytes of the waiting statuses and `leave` events. */
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

  /** Returns what may be told at `now` (monotonic ms), up to about `maxBytes`, and stops keeping it. */
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

  tell(deviceId: string, now: number): void {
    this.#told.set(deviceId, now)
  }

  /** When the device may be told of; minus infinity: at once. */
  dueOf(deviceId: string): number {
    return (this.#told.get(deviceId) ?? Number.NEGATIVE_INFINITY) + this.#perDeviceMs
  }

  /** When the next waiting device may be told of; undefined while none waits. */
  dueAt(): number | undefined {
    if (this.#pending.size === 0) return undefined
    for (const deviceId of this.#pending.keys()) if (!this.#told.has(deviceId)) return Number.NEGATIVE_INFINITY
    for (const deviceId of this.#told.keys()) if (this.#pending.has(deviceId)) return this.dueOf(deviceId)
    return undefined
  }

  /** Lowers each partition's offset to its first waiting change, so that a client that resumes there misses none. */
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
