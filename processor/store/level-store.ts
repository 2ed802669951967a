import { setImmediate as turn } from 'node:timers/promises'
import type { AbstractIterator, AbstractLevel } from 'abstract-level'
import { viewOf } from '../contract/json.ts'
import type { LogIdentity, Offset } from '../log/log.ts'
import { Limiter } from '../runtime/limiter.ts'
import { guarded } from './damage.ts'
import { INDEX_VERSION, indexedIn, isSamePlace, type Move } from './index-entries.ts'
import { type IndexWrite, NOTHING, PartitionIndex } from './partition-index.ts'
import type { Checkpoint, EntryCursor, StateStore, StoreIndex, Way } from './store.ts'

/** Reads keys that begin with `first`, and returns them without it. */
export class LevelCursor implements EntryCursor {
  readonly #iterator: AbstractIterator<Database, string, Buffer>
  readonly #first: number

  constructor(db: Database, first: string, from: string, to: string, { backwards, limit = -1 }: Way) {
    this.#iterator = db.iterator({ gte: first + from, lt: first + to, reverse: backwards, limit })
    this.#first = first.length
  }

  /** Rejects as a store does. */
  async next(size: number): Promise<[key: string, value: Buffer][]> {
    const entries = await guarded(() => this.#iterator.nextv(size))
    for (const entry of entries) entry[0] = entry[0].slice(this.#first)
    return entries
  }

  close(): Promise<void> {
    return this.#iterator.close()
  }
}

/** Entries of one read when bytes are bounded: those beyond the bound are read in vain. */
const SMALL_READ = 16

/** Reads up to the entry at which the values reach `maxBytes`, and closes the iterator. */
async function readUpTo(
  iterator: AbstractIterator<Database, string, Buffer>,
  maxBytes: number,
): Promise<[key: string, value: Buffer][]> {
  const entries: [key: string, value: Buffer][] = []
  try {
    for (let bytes = 0; ; ) {
      const read = await iterator.nextv(SMALL_READ)
      if (read.length === 0) return entries
      for (const entry of read) {
        entries.push(entry)
        bytes += entry[1].byteLength
        if (bytes >= maxBytes) return entries
      }
    }
  } finally {
    await iterator.close()
  }
}

/** Keys of one native read that gathers several reads, so that no answer holds the event loop for long. */
const MAX_READ_KEYS = 512

interface Read {
  readonly keys: string[]
  readonly resolve: (values: (Buffer | undefined)[]) => void
  readonly reject: (error: Error) => void
}

/**
 * Reads of all partitions that one question makes travel together: RocksDB answers 15 times as many keys a second in
 * batches as one by one. They wait for a microtask and not for a turn of the event loop, since questions of many clients
 * were gathered before they came here. Not bounded here: each caller awaits its read, and the callers are bounded.
 */
export class Reads {
  readonly #db: Database
  #waiting: Read[] = []

  constructor(db: Database) {
    this.#db = db
  }

  /** Resolves with the values in the order of the keys. */
  get(keys: string[]): Promise<(Buffer | undefined)[]> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ keys, resolve, reject })
      if (this.#waiting.length === 1) queueMicrotask(() => this.#flush())
    })
  }

  #flush(): void {
    const reads = this.#waiting
    this.#waiting = []
    let group: Read[] = []
    let size = 0
    for (const read of reads) {
      if (size > 0 && size + read.keys.length > MAX_READ_KEYS) {
        void this.#readGroup(group)
        group = []
        size = 0
      }
      group.push(read)
      size += read.keys.length
    }
    void this.#readGroup(group)
  }

  async #readGroup(group: readonly Read[]): Promise<void> {
    const first = group[0] as Read
    try {
      if (group.length === 1) return first.resolve(await guarded(() => this.#db.getMany(first.keys)))
      const values = await guarded(() => this.#db.getMany(group.flatMap((read) => read.keys)))
      let from = 0
      for (const read of group) read.resolve(values.slice(from, (from += read.keys.length)))
    } catch (error) {
      if (group.length === 1) return first.reject(error as Error)
      // One damaged key fails all reads of its batch, of any partition. So each is read again alone.
      for (const read of group) await this.#readGroup([read])
    }
  }
}

/** Any abstract-level database of text keys in UTF-8 and values in bytes. */
export type Database = AbstractLevel<Buffer, string, Buffer>

/** Devices added to an index in one turn of the event loop while it is built. */
const BUILD_SLICE = 256

/** A write of more devices spreads over several turns of the event loop: 4,000 that move in the index take 12 ms. */
const LARGE_WRITE = 1024

/** Entries that a recount reads in one turn of the event loop. */
const RECOUNT_SLICE = 2000

/** Stored beside the data of one partition, in the same batch. */
export interface Meta extends Checkpoint {
  readonly identity: LogIdentity
  readonly count: number | undefined
  readonly generation?: number
  /** Version of the index. Absent: there is none, or it is incomplete. */
  readonly index?: number | undefined
}

export interface Keys {
  readonly prefix: string
  readonly meta: string
  /** The prefix of the data keys, and the first key after them. */
  readonly first: string
  readonly last: string
}

export function keysOf(partition: number): Keys {
  const prefix = String(partition).padStart(5, '0')
  return { prefix, meta: `m${prefix}`, first: `d${prefix}:`, last: `d${prefix};` }
}

export function partitionOfMeta(key: string): number {
  return Number(key.slice(1))
}

/** Throws SyntaxError. */
export function metaOf(bytes: Buffer): Meta {
  return JSON.parse(bytes.toString()) as Meta
}

/**
 * The store of one partition. Its operations reject with RetryableError STORE_UNAVAILABLE (nothing is lost: try again)
 * or StoreCorruptedError.
 */
export class LevelStore implements StateStore {
  readonly #db: Database
  readonly #keys: Keys
  readonly #identity: LogIdentity
  readonly #reads: Reads
  readonly #index: PartitionIndex
  /** Commits, and slices of an index build, which read what they write. */
  readonly #writing = new Limiter(1)
  #checkpoint: Checkpoint | undefined
  #count: number | undefined
  #generation: number
  /**
   * A write failed, perhaps after it took effect, and no commit has followed. The stored data may differ from what a
   * caller expects.
   */
  #doubtful = false
  /** Callers see an empty store, but a failed wipe may have left data. */
  #wiping = false

  constructor(
    db: Database,
    keys: Keys,
    identity: LogIdentity,
    reads: Reads,
    index: PartitionIndex,
    meta: Meta | undefined,
  ) {
    this.#db = db
    this.#keys = keys
    this.#identity = identity
    this.#reads = reads
    this.#index = index
    if (meta !== undefined) {
      const { input, changelog, whole, since } = meta
      this.#checkpoint = { input, changelog, whole, since }
    }
    this.#count = meta === undefined ? 0 : meta.count
    this.#generation = meta?.generation ?? 0
  }

  get checkpoint(): Checkpoint | undefined {
    return this.#checkpoint
  }

  get count(): number | undefined {
    return this.#count
  }

  get generation(): number {
    return this.#generation
  }

  get index(): StoreIndex | undefined {
    return this.#index.usable ? this.#index : undefined
  }

  /** Whether `buildIndex` has work; never while the store is being filled. */
  get indexMissing(): boolean {
    return this.#index.missing && this.#checkpoint?.whole === true
  }

  getMany(keys: readonly string[]): Promise<(Buffer | undefined)[]> {
    const prefix = this.#keys.first
    return this.#reads.get(keys.map((key) => prefix + key))
  }

  async range(after: string | undefined, limit: number, maxBytes?: number): Promise<[key: string, value: Buffer][]> {
    const { first, last } = this.#keys
    const entries = await guarded(() => {
      const iterator = this.#db.iterator({ gt: first + (after ?? ''), lt: last, limit })
      return maxBytes === undefined ? iterator.all() : readUpTo(iterator, maxBytes)
    })
    for (const entry of entries) entry[0] = entry[0].slice(first.length)
    return entries
  }

  between(from: string, to: string, way: Way): EntryCursor {
    return new LevelCursor(this.#db, this.#keys.first, from, to, way)
  }

  commit(
    writes: ReadonlyMap<string, Uint8Array | null>,
    reached: Checkpoint,
    added?: number,
    moves?: readonly Move[],
  ): Promise<void> {
    return this.#writing.run(async () => {
      // The next role takes the store for a fresh one, so anything left would become devices for good.
      if (this.#wiping) await this.#empty()
      if (!reached.whole) this.#index.giveUp()
      await this.#index.settle()
      const known = moves === undefined || this.#doubtful ? await this.#movesOf(writes) : moves
      const count = added === undefined || this.#count === undefined ? undefined : this.#count + added
      const change = this.#index.changes(known)
      if (known.length > LARGE_WRITE) await turn()
      await this.#write(writes, reached, count, change)
      this.#doubtful = false
    })
  }

  confirm(end: Offset, at: number): Promise<void> {
    return this.#writing.run(async () => {
      const { checkpoint } = this
      if (checkpoint?.whole !== true || checkpoint.changelog < end || this.#doubtful) return
      const confirmed = { ...checkpoint, since: at }
      // A failure leaves no doubt: whether it was written or not, everything else is as before.
      await guarded(() => this.#db.put(this.#keys.meta, this.#meta(confirmed, this.#count, this.#index.version)))
      this.#checkpoint = confirmed
    })
  }

  #meta({ input, changelog, whole, since }: Checkpoint, count: number | undefined, index: number | undefined): Buffer {
    const reached = { input, changelog, whole, since, generation: this.#generation }
    const meta: Meta = { identity: this.#identity, ...reached, count, index }
    return Buffer.from(JSON.stringify(meta))
  }

  async #write(
    writes: ReadonlyMap<string, Uint8Array | null>,
    reached: Checkpoint,
    count: number | undefined,
    change: IndexWrite,
    index = this.#index.version,
  ): Promise<void> {
    const prefix = this.#keys.first
    try {
      await guarded(async () => {
        const batch = this.#db.batch()
        for (const [key, value] of writes) {
          if (value === null) batch.del(prefix + key)
          else batch.put(prefix + key, viewOf(value))
        }
        if (writes.size > LARGE_WRITE) await turn()
        this.#index.addTo(batch, change)
        if (change.puts.length > LARGE_WRITE) await turn()
        batch.put(this.#keys.meta, this.#meta(reached, count, index))
        await batch.write()
      })
    } catch (error) {
      this.#doubtful = true
      this.#index.doubt()
      throw error
    }
    this.#index.accept(change)
    const { input, changelog, whole, since } = reached
    this.#checkpoint = { input, changelog, whole, since }
    this.#count = count
  }

  /** Computes the index moves from the stored statuses. */
  async #movesOf(writes: ReadonlyMap<string, Uint8Array | null>): Promise<Move[]> {
    const ids = Array.from(writes.keys()).filter((deviceId) => this.#index.covers(deviceId))
    const moves: Move[] = []
    for (let i = 0; i < ids.length; i += MAX_READ_KEYS) {
      const some = ids.slice(i, i + MAX_READ_KEYS)
      for (const [k, old] of (await this.getMany(some)).entries()) {
        const deviceId = some[k] as string
        const value = writes.get(deviceId)
        const before = old === undefined ? undefined : indexedIn(deviceId, old)
        const after = value === undefined || value === null ? undefined : indexedIn(deviceId, value)
        if (!isSamePlace(before, after)) moves.push({ deviceId, before, after })
      }
    }
    return moves
  }

  /** Adds the next devices to a missing index. True once it is complete. Rejects as `commit` does. */
  buildIndex(devices = BUILD_SLICE): Promise<boolean> {
    return this.#writing.run(async () => {
      const { checkpoint } = this
      if (checkpoint === undefined || !this.indexMissing) return true
      if (this.#index.begins) {
        // The mark that the index is complete goes before the index itself.
        await this.#write(NO_WRITES, checkpoint, this.#count, NOTHING)
        await this.#index.begin()
      }
      const entries = await this.range(this.#index.built, devices)
      const moves = entries.map(([deviceId, value]) => {
        return { deviceId, before: undefined, after: indexedIn(deviceId, value) }
      })
      const last = entries.length < devices ? undefined : entries.at(-1)?.[0]
      const version = last === undefined ? INDEX_VERSION : undefined
      await this.#write(NO_WRITES, checkpoint, this.#count, this.#index.additions(moves), version)
      this.#index.advance(last)
      return last === undefined
    })
  }

  async recount(): Promise<number> {
    const { first, last } = this.#keys
    let count = 0
    const keys = this.#db.keys({ gt: first, lt: last })
    try {
      for (;;) {
        const slice = await guarded(() => keys.nextv(RECOUNT_SLICE))
        if (slice.length === 0) break
        count += slice.length
      }
    } finally {
      await keys.close()
    }
    this.#count = count
    return count
  }

  wipe(): Promise<void> {
    return this.#writing.run(() => this.#empty())
  }

  async #empty(): Promise<void> {
    const { meta, first, last } = this.#keys
    this.#wiping = true
    this.#generation++
    this.#checkpoint = undefined
    this.#count = 0
    // The checkpoint goes first: after a crash between the two, a store without one is emptied again.
    await guarded(() => this.#db.del(meta))
    await guarded(() => this.#db.clear({ gte: first, lt: last }))
    await this.#index.wipe()
    this.#wiping = false
  }

  /** LevelStores owns the database, and commits are on disk already. */
  async [Symbol.asyncDispose](): Promise<void> {}
}

const NO_WRITES: ReadonlyMap<string, null> = new Map()
