import type { Logger } from 'pino'
import { ConfigurationError, repartitioned } from '../contract/errors.ts'
import type { LogIdentity } from '../log/log.ts'
import { guarded } from './damage.ts'
import { type Database, keysOf, LevelStore, type Meta, metaOf, partitionOfMeta, Reads } from './level-store.ts'
import { PartitionIndex } from './partition-index.ts'

/** A key that belongs to no partition. */
const PROBE_KEY = 'probe'
const PROBE = Buffer.from([0])

export interface StoresOptions {
  readonly identity: LogIdentity
  readonly logger: Logger
  /** False: no indexes are kept, and searches scan. */
  readonly indexed?: boolean
}

/** The stores of one process. All partitions share one database, with its memory, write-ahead log and reads. */
export class LevelStores implements AsyncDisposable {
  readonly #db: Database
  readonly #identity: LogIdentity
  readonly #logger: Logger
  readonly #indexed: boolean
  readonly #reads: Reads
  readonly #stores = new Map<number, LevelStore>()

  private constructor(db: Database, { identity, logger, indexed = true }: StoresOptions) {
    this.#db = db
    this.#identity = identity
    this.#logger = logger
    this.#indexed = indexed
    this.#reads = new Reads(db)
  }

  /** Opens `db`, and closes it at the end. Rejects with the database's own error when it cannot be opened. */
  static async open(db: Database, options: StoresOptions): Promise<LevelStores> {
    await db.open()
    return new LevelStores(db, options)
  }

  /** Lists the partitions that have stored data. */
  async partitions(): Promise<number[]> {
    const keys = await guarded(() => this.#db.keys({ gte: 'm', lt: 'n' }).all())
    return keys.map(partitionOfMeta)
  }

  /**
   * One store object per partition may be in use at a time. A store of another log, or one half wiped, is emptied. Rejects
   * as the operations of a store do, and may be asked again; with ConfigurationError LOG_MISMATCH when the log is the same,
   * with another number of partitions.
   */
  async store(partition: number): Promise<LevelStore> {
    const keys = keysOf(partition)
    const meta = await this.#meta(keys.meta)
    const index = new PartitionIndex(this.#db, keys.prefix, meta?.index, !this.#indexed)
    const store = new LevelStore(this.#db, keys, this.#identity, this.#reads, index, meta)
    const reason = meta === undefined ? undefined : difference(meta.identity, this.#identity)
    if (meta !== undefined && reason?.startsWith('partitions')) {
      throw repartitioned(`the log of the store of partition ${partition}: ${reason}`)
    }
    if (reason !== undefined) this.#logger.warn({ partition, reason }, 'store wiped: it belongs to another log')
    if (reason !== undefined || meta === undefined) await store.wipe()
    else await index.settle()
    this.#stores.set(partition, store)
    return store
  }

  async #meta(key: string): Promise<Meta | undefined> {
    const bytes = await guarded(() => this.#db.get(key))
    try {
      return bytes === undefined ? undefined : metaOf(bytes)
    } catch (cause) {
      this.#logger.warn({ key, cause }, 'store wiped: its checkpoint is not readable')
      return undefined
    }
  }

  /** Writes a few bytes, always the same. Rejects with the database's own error. */
  async probe(): Promise<void> {
    await this.#db.put(PROBE_KEY, PROBE)
  }

  /**
   * Opens the database anew. What uses it meanwhile rejects with RetryableError; a write that had failed may turn out to
   * have been made. `look` opens the same database to read only. Rejects with the database's own error, and with
   * ConfigurationError FOLDER_UNAVAILABLE when it is not the database that was closed.
   */
  async reopen(look?: () => Database): Promise<void> {
    await this.#db.close()
    // The stores keep their checkpoints: of another database nothing must be read, and nothing written to it.
    if (look !== undefined) await this.#compare(look())
    await this.#db.open({ createIfMissing: false })
  }

  async #compare(db: Database): Promise<void> {
    try {
      await db.open()
      for (const [partition, store] of this.#stores) {
        if (await isContinued(db, keysOf(partition).meta, store, this.#identity)) continue
        const found = `another database, or an older state of it, has taken its place: partition ${partition} differs`
        throw new ConfigurationError('FOLDER_UNAVAILABLE', found)
      }
    } finally {
      await db.close()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#db.close()
  }
}

/** A write that failed may be stored all the same, so the database may be ahead of `store`; it is never behind. */
async function isContinued(db: Database, key: string, store: LevelStore, identity: LogIdentity): Promise<boolean> {
  const { checkpoint, generation } = store
  if (checkpoint === undefined) return true
  try {
    const stored = metaOf((await db.get(key)) ?? Buffer.alloc(0))
    const isSame = difference(stored.identity, identity) === undefined && (stored.generation ?? 0) === generation
    return isSame && stored.changelog >= checkpoint.changelog
  } catch (error) {
    if (error instanceof SyntaxError) return false
    throw error
  }
}

function difference(stored: LogIdentity, current: LogIdentity): string | undefined {
  for (const name of ['cluster', 'telemetry', 'status', 'partitions'] as const) {
    if (stored[name] !== current[name]) return `${name} was ${stored[name]} and is ${current[name]}`
  }
  return undefined
}
