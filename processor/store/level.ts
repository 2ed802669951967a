import type { AbstractLevel } from 'abstract-level'
import type { Logger } from 'pino'
import { CorruptedError, RetryableError } from '../contract/errors.ts'
import type { LogIdentity } from '../log/log.ts'
import type { Checkpoint, StateStore } from './store.ts'

/** Any abstract-level database of text keys in UTF-8 and values in bytes. */
export type Database = AbstractLevel<Buffer, string, Buffer>

/** Keys of one native read that gathers several reads, so that no answer holds the event loop for long. */
const MAX_READ_KEYS = 512

/** Entries a recount reads between two turns of the event loop. */
const RECOUNT_SLICE = 2000

/** What stands beside the data of one partition, written with it in the same batch. */
interface Meta extends Checkpoint {
  readonly identity: LogIdentity
  readonly count: number | undefined
}

interface Read {
  readonly keys: string[]
  readonly resolve: (values: (Buffer | undefined)[]) => void
  readonly reject: (error: Error) => void
}

/** The stores of one process: all partitions in one database, so that they share its memory, its log and its reads. */
export class LevelStores implements AsyncDisposable {
  readonly #db: Database
  readonly #identity: LogIdentity
  readonly #logger: Logger
  #reads: Read[] = []

  private constructor(db: Database, identity: LogIdentity, logger: Logger) {
    this.#db = db
    this.#identity = identity
    this.#logger = logger
  }

  /** Opens `db`, and closes it when disposed of. Rejects with the database's own error when it cannot be opened. */
  static async open(db: Database, options: { identity: LogIdentity; logger: Logger }): Promise<LevelStores> {
    await db.open()
    return new LevelStores(db, options.identity, options.logger)
  }

  /** Partitions of which something is stored. */
  async partitions(): Promise<number[]> {
    const keys = await guarded(() => this.#db.keys({ gte: 'm', lt: 'n' }).all())
    return keys.map((key) => Number(key.slice(1)))
  }

  /** One store object per partition may be in use at a time. A store of another log, or one half wiped, is emptied. */
  async store(partition: number): Promise<LevelStore> {
    const prefix = String(partition).padStart(5, '0')
    const keys: Keys = { meta: `m${prefix}`, first: `d${prefix}:`, last: `d${prefix};` }
    const meta = await this.#meta(keys.meta)
    const store = new LevelStore(this.#db, keys, this.#identity, (read) => this.#read(read), meta)
    const reason = meta === undefined ? undefined : difference(meta.identity, this.#identity)
    if (reason !== undefined) this.#logger.warn({ partition, reason }, 'store wiped: it belongs to another log')
    if (reason !== undefined || meta === undefined) await store.wipe()
    return store
  }

  async #meta(key: string): Promise<Meta | undefined> {
    const bytes = await guarded(() => this.#db.get(key))
    try {
      return bytes === undefined ? undefined : (JSON.parse(bytes.toString()) as Meta)
    } catch (cause) {
      this.#logger.warn({ key, cause }, 'store wiped: its checkpoint is not readable')
      return undefined
    }
  }

  /**
   * Reads of one turn of the event loop travel together: RocksDB answers 15 times as many keys a second in batches as
   * one by one. Not bounded here: each caller awaits its read, and the callers are bounded.
   */
  #read(read: Read): void {
    this.#reads.push(read)
    if (this.#reads.length === 1) setImmediate(() => this.#flush())
  }

  #flush(): void {
    const reads = this.#reads
    this.#reads = []
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
      for (const read of group) read.reject(error as Error)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#db.close()
  }
}

interface Keys {
  readonly meta: string
  /** The prefix of the data keys, and the first key past them. */
  readonly first: string
  readonly last: string
}

/**
 * The store of one partition. Its operations reject with RetryableError STORE_UNAVAILABLE (nothing is lost: try again)
 * or CorruptedError STORE_CORRUPTED.
 */
export class LevelStore implements StateStore {
  readonly #db: Database
  readonly #keys: Keys
  readonly #identity: LogIdentity
  readonly #read: (read: Read) => void
  #checkpoint: Checkpoint | undefined
  #count: number | undefined

  constructor(db: Database, keys: Keys, identity: LogIdentity, read: (read: Read) => void, meta: Meta | undefined) {
    this.#db = db
    this.#keys = keys
    this.#identity = identity
    this.#read = read
    if (meta !== undefined) {
      const { input, changelog, whole, since } = meta
      this.#checkpoint = { input, changelog, whole, since }
    }
    this.#count = meta === undefined ? 0 : meta.count
  }

  get checkpoint(): Checkpoint | undefined {
    return this.#checkpoint
  }

  get count(): number | undefined {
    return this.#count
  }

  getMany(keys: readonly string[]): Promise<(Buffer | undefined)[]> {
    const prefix = this.#keys.first
    return new Promise((resolve, reject) => {
      this.#read({ keys: keys.map((key) => prefix + key), resolve, reject })
    })
  }

  async range(after: string | undefined, limit: number): Promise<[key: string, value: Buffer][]> {
    const { first, last } = this.#keys
    const entries = await guarded(() => this.#db.iterator({ gt: first + (after ?? ''), lt: last, limit }).all())
    for (const entry of entries) entry[0] = entry[0].slice(first.length)
    return entries
  }

  async between(from: string, to: string, limit: number, backwards: boolean): Promise<[key: string, value: Buffer][]> {
    const { first } = this.#keys
    const bounds = { gte: first + from, lt: first + to, limit, reverse: backwards }
    const entries = await guarded(() => this.#db.iterator(bounds).all())
    for (const entry of entries) entry[0] = entry[0].slice(first.length)
    return entries
  }

  async commit(writes: ReadonlyMap<string, Uint8Array | null>, reached: Checkpoint, added?: number): Promise<void> {
    const { input, changelog, whole, since } = reached
    const count = added === undefined || this.#count === undefined ? undefined : this.#count + added
    await guarded(() => this.#write(writes, { identity: this.#identity, input, changelog, whole, since, count }))
    this.#checkpoint = { input, changelog, whole, since }
    this.#count = count
  }

  async #write(writes: ReadonlyMap<string, Uint8Array | null>, meta: Meta): Promise<void> {
    const prefix = this.#keys.first
    const batch = this.#db.batch()
    for (const [key, value] of writes) {
      if (value === null) batch.del(prefix + key)
      else batch.put(prefix + key, bufferOf(value))
    }
    batch.put(this.#keys.meta, Buffer.from(JSON.stringify(meta)))
    await batch.write()
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

  async wipe(): Promise<void> {
    const { meta, first, last } = this.#keys
    // The checkpoint goes first: after a crash between the two, a store without one is emptied again.
    await guarded(() => this.#db.del(meta))
    this.#checkpoint = undefined
    await guarded(() => this.#db.clear({ gte: first, lt: last }))
    this.#count = 0
  }

  /** The database belongs to LevelStores, and what was committed is on disk: nothing is left to do. */
  async [Symbol.asyncDispose](): Promise<void> {}
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function difference(stored: LogIdentity, current: LogIdentity): string | undefined {
  for (const name of ['cluster', 'telemetry', 'status', 'partitions'] as const) {
    if (stored[name] !== current[name]) return `${name} was ${stored[name]} and is ${current[name]}`
  }
  return undefined
}

async function guarded<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await operation()
  } catch (error) {
    const { code, message } = error as { code?: string; message: string }
    if (code === 'LEVEL_CORRUPTION') {
      throw new CorruptedError('STORE_CORRUPTED', `the store is damaged and must be restored: ${message}`, error)
    }
    throw new RetryableError('STORE_UNAVAILABLE', `the store cannot be read or written now: ${message}`, error)
  }
}
