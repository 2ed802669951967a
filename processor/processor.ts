import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { RocksLevel } from 'rocksdb-level'
import { ConfigurationError, databaseFailure, StoreCorruptedError, wayOut } from './contract/errors.ts'
import type { PartitionReader } from './contract/query.ts'
import { DEFAULT_LIMITS, type ProcessorLimits } from './limits.ts'
import type { Claim, Copying, Log, Member, Offset } from './log/log.ts'
import { ProcessorMetrics, Receipts } from './metrics.ts'
import { Progress } from './partition/progress.ts'
import { mayLackTombstones } from './partition/restore.ts'
import { type PartitionCopy, persist, type Role, type RoleContext } from './partition/role.ts'
import { Standby } from './partition/standby.ts'
import { Fitness, StoreFaults } from './partition/store-faults.ts'
import { Task } from './partition/task.ts'
import { Arrivals, Decisions } from './partition/waiters.ts'
import { ForeignStatuses, StoreReader } from './query/store-reader.ts'
import { InFlight } from './runtime/in-flight.ts'
import { inMemory } from './runtime/memory.ts'
import { pause } from './runtime/pause.ts'
import { RestorePriority } from './runtime/restore-priority.ts'
import { Turns } from './runtime/turns.ts'
import { IndexBuilder } from './search/index/builder.ts'
import { ScanThreads } from './search/scan-threads.ts'
import { Searcher } from './search/searcher.ts'
import { emptyFolder, isDamage, isMarkedDamaged, markDamaged } from './store/damage.ts'
import type { Database } from './store/level-store.ts'
import { LevelStores } from './store/level-stores.ts'
import { StatusCache } from './store/status-cache.ts'
import { TextCache } from './store/text-cache.ts'

export interface ProcessorOptions {
  readonly log: Log
  /** Stable over restarts; told apart from the other processors of the group. */
  readonly instance: string
  /** Where readers of other processes reach this one. */
  readonly endpoint: string
  /** Where the stores are; held by one process at a time. */
  readonly folder: string
  /** The database of the stores; default: RocksDB in `folder`. */
  readonly database?: () => Database
  /** RocksDB in `folder`, when it is being opened already. */
  readonly opening?: Database | undefined
  readonly logger: Logger
  readonly registry: Registry
  /** Epoch ms. */
  readonly now: () => number
  /** Ms on a clock that nobody sets. */
  readonly monotonic?: () => number
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>
  readonly limits?: Partial<ProcessorLimits>
  /** False: the stores have no indexes, and every search scans. What indexes cost is measured so. */
  readonly indexed?: boolean
}

/** This process's part in the group: its tasks, its standbys, and their stores. */
export class Processor implements Member, AsyncDisposable {
  readonly instance: string
  readonly endpoint: string
  /** Answers from the copies held here. */
  readonly reader: PartitionReader
  readonly #context: RoleContext
  readonly #stores: LevelStores
  readonly #builder: IndexBuilder
  readonly #fitness: Fitness
  readonly #scans: ScanThreads | undefined
  /** Kept open from role to role, so that a standby's copy is the owner's. */
  readonly #copies = new Map<number, PartitionCopy>()
  readonly #roles = new Map<number, Role>()

  private constructor(options: ProcessorOptions, stores: LevelStores) {
    const { instance, endpoint, log, folder, database, logger, registry, now } = options
    const { monotonic = () => performance.now(), sleep = pause } = options
    const limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.instance = instance
    this.endpoint = endpoint
    this.#stores = stores
    const turns = new Turns()
    const texts = new TextCache({ maxEntries: limits.cacheEntries, maxBytes: limits.textBytes })
    // Only a database in a folder can be opened a second time.
    const look = database === undefined ? () => openDatabase(folder, { readOnly: true }) : undefined
    if (look !== undefined) this.#scans = new ScanThreads({ folder, logger })
    const searcher = new Searcher(turns, monotonic, { scans: this.#scans })
    const foreign = new ForeignStatuses(logger)
    this.reader = new StoreReader({ instance, roles: this.#roles, texts, searcher, foreign })
    const cache = new StatusCache({ maxEntries: limits.cacheEntries, maxBytes: limits.cacheBytes })
    const metrics = new ProcessorMetrics(registry)
    metrics.begin(instance)
    const reopen = () => stores.reopen(look).catch((error: unknown) => Promise.reject(unusable(folder, error)))
    const faults = new StoreFaults({ instance, metrics, logger, now, reopen })
    this.#fitness = new Fitness({ faults, probe: () => stores.probe(), monotonic, sleep })
    const restorePriority = new RestorePriority(sleep)
    this.#builder = new IndexBuilder({
      restorePriority,
      turns,
      logger,
      now: monotonic,
      sleep,
      retryMs: limits.retryMaxMs,
    })
    const inFlight = new InFlight(limits.inFlightRecords, sleep)
    const receipts = new Receipts({ instance, metrics, logger, now })
    const shared = { cache, texts, turns, restorePriority, inFlight, faults, receipts }
    const clocks = { now, monotonic, sleep }
    this.#context = { instance, log, ...shared, limits, metrics, logger, ...clocks }
  }

  /** Rejects with ConfigurationError when the folder is held by another process or cannot be used. */
  static async open(options: ProcessorOptions): Promise<Processor> {
    const { folder, database, opening, logger } = options
    try {
      if (database !== undefined) return await Processor.#open(options, database())
      try {
        return await Processor.#open(options, opening ?? openDatabase(folder))
      } catch (error) {
        if (!isDamage(error)) throw error
        logger.error(
          { folder, err: error },
          'store folder wiped: it is damaged, and will be restored from the changelog',
        )
        await emptyFolder(folder)
        return await Processor.#open(options, openDatabase(folder))
      }
    } catch (error) {
      throw unusable(folder, error)
    }
  }

  /** Rejects with the database's own error, or as a store does. */
  static async #open(options: ProcessorOptions, db: Database): Promise<Processor> {
    const { folder, database, log, logger, indexed = true } = options
    await using opening = new AsyncDisposableStack()
    const stores = opening.use(await LevelStores.open(db, { identity: log.identity, logger, indexed }))
    if (database === undefined) {
      // Only who has opened the folder holds its lock, and may judge what is in it.
      if (isMarkedDamaged(folder)) throw new StoreCorruptedError('it was found damaged before')
      db.once('corruption', (error: Error) => foundDamaged(folder, error, logger))
    }
    const processor = opening.use(new Processor(options, stores))
    await processor.#openCopies()
    opening.move()
    return processor
  }

  /** Takes part in the group until `signal` aborts. Rejects as `Log.join` does. */
  async run(signal: AbortSignal): Promise<void> {
    const ended = new AbortController()
    void this.#watch(ended.signal)
    void this.#fitness.watch(ended.signal)
    try {
      await this.#context.log.join(this, signal)
    } finally {
      ended.abort()
    }
  }

  /** Never rejects. */
  async #watch(signal: AbortSignal): Promise<void> {
    const { limits, sleep, logger } = this.#context
    for (;;) {
      await sleep(limits.sightMs, signal)
      for (const [partition, role] of this.#roles) {
        if (signal.aborted) return
        await role.sight().catch((error: unknown) => {
          // That the log is away its own health says, and that the store is, who works on it.
          logger.debug({ partition, err: error }, 'the partition cannot be looked at')
        })
      }
      if (signal.aborted) return
    }
  }

  /** What keeps it from its work; a line each. */
  get problems(): readonly string[] {
    const { problems } = this.#context.faults
    const { problem } = this.#fitness
    return problems.length > 0 || problem === undefined ? problems : [problem]
  }

  get unfit(): boolean {
    return this.#fitness.unfit
  }

  positions(): ReadonlyMap<number, Offset> {
    const { log, now, faults } = this.#context
    const positions = new Map<number, Offset>()
    for (const [partition, { store }] of this.#copies) {
      const { checkpoint } = store
      if (checkpoint === undefined) continue
      const isOld = mayLackTombstones(checkpoint.since, now(), log.deleteRetentionMs)
      // An owner's is what others are measured by.
      const isStuck = faults.has(partition) && this.#roles.get(partition)?.kind === 'standby'
      positions.set(partition, isOld || isStuck ? 0 : checkpoint.changelog)
    }
    return positions
  }

  async active(claim: Claim, signal: AbortSignal): Promise<void> {
    const copy = await this.#takeUp(claim.partition, signal)
    if (copy !== undefined) await this.#play(claim.partition, new Task(this.#context, claim, copy), signal)
  }

  async standby(partition: number, signal: AbortSignal, copying: Copying): Promise<void> {
    const copy = await this.#takeUp(partition, signal)
    if (copy !== undefined) await this.#play(partition, new Standby(this.#context, partition, copy, copying), signal)
  }

  async #play(partition: number, role: Task | Standby, signal: AbortSignal): Promise<void> {
    this.#roles.set(partition, role)
    try {
      await role.run(signal)
    } finally {
      role.copy.arrivals.release()
      // The next role on the partition may have begun.
      if (this.#roles.get(partition) === role) this.#roles.delete(partition)
    }
  }

  /** What is here from before is a warm copy too: `positions` tells of it. */
  async #openCopies(): Promise<void> {
    await Promise.all((await this.#stores.partitions()).map((partition) => this.#copy(partition)))
  }

  /**
   * A full volume is no reason to leave the group, as all who inherit the partition would do in turn. Undefined when
   * `signal` aborted first; rejects as `persist` does.
   */
  async #takeUp(partition: number, signal: AbortSignal): Promise<PartitionCopy | undefined> {
    let copy = this.#copies.get(partition)
    if (copy !== undefined) return copy
    await persist(this.#context, partition, async () => void (copy = await this.#copy(partition)), signal)
    return copy
  }

  async #copy(partition: number): Promise<PartitionCopy> {
    const open = this.#copies.get(partition)
    if (open !== undefined) return open
    const store = await this.#stores.store(partition)
    const onWhole = () => this.#builder.take(partition, store)
    const progress = new Progress(this.#context.monotonic)
    const copy = { store, decisions: new Decisions(), arrivals: new Arrivals(), progress, onWhole }
    this.#copies.set(partition, copy)
    return copy
  }

  /** Closes the stores; `run` must have ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scans?.[Symbol.asyncDispose]()
    await this.#builder[Symbol.asyncDispose]()
    await this.#stores[Symbol.asyncDispose]()
  }
}

/** Statuses are overwritten again and again: with larger memtables fewer tables are written, and compacted away. */
const ROCKSDB = { writeBufferSize: inMemory(32 * 1024 * 1024), maxWriteBufferNumber: 3 }

/**
 * Begins to open the stores in `folder`: after kill -9 that takes up to a second, as RocksDB reads its write-ahead log.
 * What goes wrong is told by `Processor.open`.
 */
export function openDatabase(folder: string, { readOnly = false } = {}): Database {
  return new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer', ...ROCKSDB, readOnly })
}

/**
 * Wiping a store leaves the damaged block in its file until compaction, which reads it, and then RocksDB refuses every
 * write to the database: no wipe mends that, and only an empty folder does.
 */
function foundDamaged(folder: string, found: Error, logger: Logger): void {
  try {
    markDamaged(folder, found)
    const then = 'at the next start it is wiped, and restored from the changelog'
    logger.error({ folder, err: found }, `the store folder is damaged: ${then}`)
  } catch (error) {
    const way = 'remove it before the next start, to have it restored from the changelog'
    logger.error({ folder, err: found, cause: error }, `the store folder is damaged, and cannot be marked so: ${way}`)
  }
}

const PUT_BACK = 'mount it or put it back, and start again; a start without it restores from the changelog'

function unusable(folder: string, error: unknown): ConfigurationError {
  const { code, message } = databaseFailure(error)
  if (code === 'LEVEL_LOCKED') {
    const way = 'stop that process, or give this one another DATA_DIR or INSTANCE_ID'
    return new ConfigurationError('STORE_LOCKED', `the store folder ${folder} is in use: ${message}; ${way}`, error)
  }
  const ways: Record<string, string> = {
    LEVEL_NO_SPACE: 'free space on its volume, which a start needs, too',
    LEVEL_NOT_FOUND: PUT_BACK,
    FOLDER_UNAVAILABLE: PUT_BACK,
  }
  const way = ways[code ?? ''] ?? wayOut(code, message, 'make it a folder this user can write, or set another DATA_DIR')
  return new ConfigurationError(
    'FOLDER_UNAVAILABLE',
    `the store folder ${folder} cannot be used: ${message}; ${way}`,
    error,
  )
}
