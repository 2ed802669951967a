import { StoreCorruptedError } from '../contract/errors.ts'
import type { Outcome, Write } from '../contract/write.ts'
import type { LogRecord } from '../log/log.ts'
import type { Turn } from '../runtime/turns.ts'
import { HeldStatus } from '../status/held-status.ts'
import { type Indexed, indexedIn, indexedOf } from '../store/index-entries.ts'
import type { CachedStatus, StatusCache } from '../store/status-cache.ts'
import type { StateStore } from '../store/store.ts'

/** Statuses in one read of the store, at most, so that decoding them holds the event loop for a short time. */
const READ_KEYS = 512
/** Bytes in one read, about: the statuses are taken to be as large as those of the last read. */
const READ_BYTES = 4 * 1024 * 1024
/** Statuses in the first read, when their size is not known. */
const FIRST_KEYS = 64

export interface BatchContext {
  readonly partition: number
  readonly store: StateStore
  readonly cache: StatusCache
  readonly turn: Turn
  /** The owner of the cache entries that may be used. */
  readonly owner: object
  /** The number of this batch; grows from one batch of an owner to the next. */
  readonly batch: number
  /** JSON bytes of the statuses that one commit may start from; the rest of the batch is left. */
  readonly maxBytes: number
  /** `Claim.commitBytes`: bounds the same bytes, and those of the records' values. */
  readonly maxCommitBytes?: number | undefined
  readonly reads: ReadSize
  /** The store has been rebuilt from the changelog: a status that is no JSON is so there, too. */
  readonly restored: boolean
}

/** A device of a batch: its status, as the fold changes it, and what the fold must remember of it before the batch. */
export interface BatchDevice {
  readonly deviceId: string
  entry: CachedStatus | undefined
  status: HeldStatus | undefined
  existed: boolean
  /** The store holds what is no status: the device starts anew. */
  foreign: boolean
  /** A record of the batch was accepted. */
  touched: boolean
  /** What was indexed before the batch. */
  before: Indexed | undefined
  /** A write of the batch deleted it; a later record may have created it again. */
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

/** Bytes of a new status beside what the device reports: names, times, counters. */
const NEW_STATUS_BYTES = 384

/** How many statuses a task reads at a time: fewer where they are large. */
export class ReadSize {
  keys = FIRST_KEYS

  learn(values: readonly (Uint8Array | undefined)[]): void {
    let bytes = 0
    for (const value of values) bytes += value?.byteLength ?? 0
    const fit = Math.floor((READ_BYTES * values.length) / Math.max(1, bytes))
    this.keys = Math.max(1, Math.min(READ_KEYS, fit))
  }
}

/** The devices of one batch, with their statuses from the cache or the store. */
export class BatchDevices {
  readonly all = new Map<string, BatchDevice>()
  /** JSON bytes of the statuses loaded so far. */
  bytes = 0
  /** JSON bytes of the statuses that the batch will create, estimated. */
  #newBytes = 0
  readonly #missing: BatchDevice[] = []
  readonly #context: BatchContext

  constructor(context: BatchContext) {
    this.#context = context
  }

  get full(): boolean {
    const { maxBytes, maxCommitBytes = Number.POSITIVE_INFINITY } = this.#context
    return this.bytes > maxBytes || this.bytes + this.#newBytes > maxCommitBytes
  }

  add(id: string): BatchDevice {
    const known = this.all.get(id)
    if (known !== undefined) return known
    const { cache, owner } = this.#context
    const entry = cache.get(id, owner)
    const device: BatchDevice = {
      deviceId: id,
      entry,
      status: undefined,
      existed: false,
      foreign: false,
      touched: false,
      before: undefined,
      deleted: false,
      writes: undefined,
      rev: 0,
      duplicates: 0,
    }
    if (entry === undefined) {
      this.#missing.push(device)
    } else {
      this.bytes += entry.bytes
      startFrom(device, entry.status)
    }
    this.all.set(id, device)
    return device
  }

  /**
   * Reads the missing statuses in the order in which their devices were added, one at least, until `full`. Resolves with the
   * first device left without its status; undefined when there is none.
   */
  async load(): Promise<BatchDevice | undefined> {
    const { store, turn, reads } = this.#context
    for (let i = 0; i < this.#missing.length; ) {
      const devices = this.#missing.slice(i, i + reads.keys)
      const values = await store.getMany(devices.map((device) => device.deviceId))
      reads.learn(values)
      for (let k = 0; k < devices.length; k++, i++) {
        const device = devices[k] as BatchDevice
        if (i > 0 && this.full) return device
        const bytes = values[k]
        if (bytes === undefined) {
          this.#newBytes += NEW_STATUS_BYTES
          continue
        }
        this.bytes += bytes.byteLength
        this.#decode(device, bytes)
        if (turn.spend(bytes.byteLength)) await turn.next()
      }
    }
    return undefined
  }

  #decode(device: BatchDevice, bytes: Uint8Array): void {
    const status = decodeStored(device.deviceId, bytes, this.#context)
    if (status !== undefined) {
      startFrom(device, status)
      return
    }
    device.existed = true
    device.before = indexedIn(device.deviceId, bytes)
    device.foreign = true
  }
}

/**
 * Undefined for a value that is no status: others may write to the changelog. A value that is not even JSON may be damage of
 * the store: throws StoreCorruptedError, unless the store has just been restored.
 */
export function decodeStored(deviceId: string, bytes: Uint8Array, { restored }: BatchContext): HeldStatus | undefined {
  try {
    return HeldStatus.decode(deviceId, bytes)
  } catch (cause) {
    if (restored) return undefined
    throw new StoreCorruptedError(`the stored status of device ${deviceId} is not JSON`, cause)
  }
}

function startFrom(device: BatchDevice, status: HeldStatus): void {
  device.status = status
  device.existed = true
  device.before = indexedOf(status)
  device.rev = status.rev
  device.duplicates = status.duplicates
}
