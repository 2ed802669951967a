import { StoreCorruptedError } from '../contract/errors.ts'
import { decodeStatus, isStatus, type Status } from '../contract/status.ts'
import type { Outcome, Write } from '../contract/write.ts'
import type { LogRecord } from '../log/log.ts'
import type { Turn } from '../runtime/turns.ts'
import { decodePlain, type PlainStatus } from '../status/plain-status.ts'
import { type Indexed, indexedIn, indexedOf } from '../store/index-entries.ts'
import type { CachedStatus, StatusCache } from '../store/status-cache.ts'
import type { StateStore } from '../store/store.ts'
import type { TextCache } from '../store/text-cache.ts'

/** Statuses read from the store at a time: what is decoded of them at once stays short. */
const READ_KEYS = 512
/** And their bytes, as far as they are like those read before. */
const READ_BYTES = 4 * 1024 * 1024
/** Statuses that are read before it is known how large they are. */
const FIRST_KEYS = 64

export interface BatchContext {
  readonly partition: number
  readonly store: StateStore
  readonly cache: StatusCache
  readonly texts: TextCache
  readonly turn: Turn
  /** Whose entries of the cache may be used, and the number of this batch among its own, growing. */
  readonly owner: object
  readonly batch: number
  /** JSON of the statuses that the batch begins with, bytes: when they are more, the rest of it is left. */
  readonly maxBytes: number
  /** `Claim.commitBytes`: bounds that JSON, and what the values of the records come to, too. */
  readonly maxCommitBytes?: number | undefined
  /** Of the task. */
  readonly reads: ReadSize
  /** What the store holds has just been read from the changelog: what cannot be used is so there too. */
  readonly restored: boolean
}

/** A device that the batch speaks of. */
export interface Touched {
  readonly deviceId: string
  entry: CachedStatus | undefined
  /** What the entry holds, as long as it can do what the batch asks for; then `status` is used. */
  plain: PlainStatus | undefined
  status: Status | undefined
  existed: boolean
  /** What was indexed before the batch; of a plain status, `lastSeenAt` is all that can change. */
  before: Indexed | undefined
  lastSeenAt: string
  /** It was deleted in the batch, and may have come to be again. */
  deleted: boolean
  /** The writes to it in the batch, in order. */
  writes: DecidedWrite[] | undefined
  /** `rev` and `counters.duplicates` before the batch: neither grows when nothing changes. */
  rev: number
  duplicates: number
}

export interface DecidedWrite {
  readonly record: LogRecord
  readonly write: Write
  outcome: Outcome
}

/** What a status has that is made, bytes, beside what the device says: names, times, counters. */
const NEW_STATUS_BYTES = 384

/** How many statuses a task reads at a time: of large ones fewer. */
export class ReadSize {
  keys = FIRST_KEYS

  /** What the last read gave. */
  learn(values: readonly (Uint8Array | undefined)[]): void {
    let bytes = 0
    for (const value of values) bytes += value?.byteLength ?? 0
    const fit = Math.floor((READ_BYTES * values.length) / Math.max(1, bytes))
    this.keys = Math.max(1, Math.min(READ_KEYS, fit))
  }
}

/** The devices that one batch speaks of, with their statuses before it. */
export class TouchedDevices {
  readonly all = new Map<string, Touched>()
  /** Ids of those of which the store holds something that is no status: they begin anew. */
  readonly foreign: string[] = []
  /** JSON of the statuses, as far as they are here. */
  bytes = 0
  /** Of those that are made, about. */
  #newBytes = 0
  readonly #missing: Touched[] = []
  readonly #context: BatchContext

  constructor(context: BatchContext) {
    this.#context = context
  }

  /** Whether no more devices are to be added. */
  get full(): boolean {
    const { maxBytes, maxCommitBytes = Number.POSITIVE_INFINITY } = this.#context
    return this.bytes > maxBytes || this.bytes + this.#newBytes > maxCommitBytes
  }

  /** The work of decoding counts in the turn; whether that is over, what is spent next tells. */
  add(id: string): Touched {
    const known = this.all.get(id)
    if (known !== undefined) return known
    const { cache, owner, turn } = this.#context
    const entry = cache.get(id, owner)
    const device: Touched = {
      deviceId: id,
      entry,
      plain: undefined,
      status: undefined,
      existed: false,
      before: undefined,
      lastSeenAt: '',
      deleted: false,
      writes: undefined,
      rev: 0,
      duplicates: 0,
    }
    if (entry === undefined) {
      this.#missing.push(device)
    } else {
      this.bytes += entry.bytes
      if (typeof entry.image === 'string') {
        begin(device, JSON.parse(entry.image) as Status)
        turn.spend(entry.bytes)
      } else {
        beginPlain(device, entry.image)
      }
    }
    this.all.set(id, device)
    return device
  }

  /**
   * Reads the statuses that are not here yet, in the order in which they were added, until they are too many; one at least.
   * Gives the first device whose status is not here then; undefined when all are.
   */
  async load(): Promise<Touched | undefined> {
    const { store, turn, reads } = this.#context
    for (let i = 0; i < this.#missing.length; ) {
      const devices = this.#missing.slice(i, i + reads.keys)
      const values = await store.getMany(devices.map((device) => device.deviceId))
      reads.learn(values)
      for (let k = 0; k < devices.length; k++, i++) {
        const device = devices[k] as Touched
        if (i > 0 && this.full) return device
        const bytes = values[k]
        if (bytes === undefined) {
          this.#newBytes += NEW_STATUS_BYTES
          continue
        }
        this.bytes += bytes.byteLength
        this.#begin(device, bytes)
        if (turn.spend(bytes.byteLength)) await turn.next()
      }
    }
    return undefined
  }

  #begin(device: Touched, bytes: Uint8Array): void {
    const plain = decodePlain(device.deviceId, bytes)
    if (plain !== undefined) {
      beginPlain(device, plain)
      return
    }
    const status = stored(device.deviceId, bytes, this.#context)
    if (status !== undefined) {
      begin(device, status)
      return
    }
    device.existed = true
    device.before = indexedIn(device.deviceId, bytes)
    this.foreign.push(device.deviceId)
  }
}

/**
 * Undefined for what is no status: others may write to the changelog. What is not even JSON may be damage of the store, which
 * is restored first. Throws StoreCorruptedError then.
 */
export function stored(deviceId: string, bytes: Uint8Array, { restored }: BatchContext): Status | undefined {
  try {
    const status = decodeStatus(bytes)
    return isStatus(status, deviceId) ? status : undefined
  } catch (cause) {
    if (restored) return undefined
    throw new StoreCorruptedError(`the stored status of device ${deviceId} is not JSON`, cause)
  }
}

function begin(device: Touched, status: Status): void {
  device.status = status
  device.existed = true
  device.before = indexedOf(status)
  device.rev = status.rev
  device.duplicates = status.counters.duplicates
}

function beginPlain(device: Touched, plain: PlainStatus): void {
  device.plain = plain
  device.existed = true
  device.lastSeenAt = plain.lastSeenAt
  device.rev = plain.rev
  device.duplicates = plain.duplicates
}
