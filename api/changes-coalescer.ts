import type { Offset } from '../processor/contract/record.ts'
import type { Change } from './changes-change.ts'

/** What is still to be told of a device: its newest change, and whether it satisfies the stream's query. */
export interface Pending {
  readonly change: Change
  readonly matched: boolean
}

/** The changes that wait in one stream: of each device the newest, each told not before the last is `perDeviceMs` old. */
export class Coalescer {
  readonly #perDeviceMs: number
  /** By device, in the order in which they came to wait. */
  readonly #pending = new Map<string, Pending>()
  /** When the devices told of within `perDeviceMs` were told of, oldest first. */
  readonly #told = new Map<string, number>()
  /** Of the statuses that wait. */
  bytes = 0

  constructor(perDeviceMs: number) {
    this.#perDeviceMs = perDeviceMs
  }

  get size(): number {
    return this.#pending.size
  }

  put(change: Change, matched: boolean): void {
    const { deviceId } = change
    this.bytes += change.bytes - (this.#pending.get(deviceId)?.change.bytes ?? 0)
    this.#pending.set(deviceId, { change, matched })
  }

  has(deviceId: string): boolean {
    return this.#pending.has(deviceId)
  }

  drop(deviceId: string): void {
    const pending = this.#pending.get(deviceId)
    if (pending === undefined) return
    this.bytes -= pending.change.bytes
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
      bytes += pending.change.bytes
      due.push(pending)
    }
    for (const { change } of due) this.drop(change.deviceId)
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
    for (const { change } of this.#pending.values()) {
      const offset = offsets[change.partition]
      if (offset !== undefined && change.offset < offset) offsets[change.partition] = change.offset
    }
  }
}
