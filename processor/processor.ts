import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { RocksLevel } from 'rocksdb-level'
import { ConfigurationError, databaseFailure, StoreCorruptedError, wayOut } from './contract/errors.ts'
import type { PartitionReader } from './contract/query.ts'
import { DEFAULT_LIMITS, type ProcessorLimits } from './limits.ts'
import type { Claim, Copying, Log, Member, Offset } from './log/log.ts'
import { EndToEndLatency, ProcessorMetrics } from './metrics.ts'
import { DiskSpaceMonitor } from './partition/disk-space.ts'
import { mayLackTombstones } from './partition/restore.ts'
import { RestoreProgress } from './partition/restore-progress.ts'
import type { PartitionCopy, Role } from './partition/role.ts'
import { Standby } from './partition/standby.ts'
import { StoreWriter } from './partition/store-writer.ts'
import { Task, type TaskParts } from './partition/task.ts'
import { PositionWaiters, WriteOutcomes } from './partition/waiters.ts'
import { ForeignStatuses, StoreReader } from './query/store-reader.ts'
import { InFlight, RestorePriority } from './runtime/limiter.ts'
import { pause } from './runtime/pause.ts'
import { inMemory } from './runtime/resources.ts'
import { Turns } from './runtime/turns.ts'
import { IndexBuilder } from './search/index/builder.ts'
import { ScanThreads } from './search/scan-threads.ts'
import { Searcher } from './search/searcher.ts'
import { emptyFolder, isDamage, isMarkedDamaged, markDamaged } from './store/damage.ts'
import type { Database } from './store/level-store.ts'
import { LevelStores } from './store/level-stores.ts'
import { StatusCache } from './store/status-cache.ts'

export interface ProcessorOptions {
  readonly log: Log
  /** Stable over restarts, and unique in the group. */
  readonly instance: string
  /** Where readers of other processes reach this one. */
  readonly endpoint: string
  /** The folder of the stores; held by one process at a time. */
  readonly folder: string
  /** The database of the stores; default: RocksDB in `folder`. */
  readonly database?: () => Database
  /** RocksDB in `folder`, if it is being opened already. */
  readonly opening?: Database | undefined
  readonly logger: Logger
  readonly registry: Registry
  /** Epoch ms. */
  readonly now: () => number
  /** A monotonic clock, ms. */
  readonly monotonic?: () => number
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>
  readonly limits?: Partial<ProcessorLimits>
  /** False: the stores have no indexes, and every search scans, to measure what indexes cost. */
  readonly indexed?: boolean
}

/** A member of the group: its tasks, its standbys, and their stores. */
export class Processor implements Member, AsyncDisposable {
  readonly instance: string
  readonly endpoint: string
  /** Answers from the copies held here. */
  readonly reader: PartitionReader
  /** Parts for the roles; each takes those that its type names. */
  readonly #parts: TaskParts
  readonly #stores: LevelStores
  readonly #builder: IndexBuilder
  readonly #space: DiskSpaceMonitor
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
    // Only a database in a folder can be opened a second time.
    const look = database === undefined ? () => openDatabase(folder, { readOnly: true }) : undefined
    if (look !== undefined) this.#scans = new ScanThreads({ folder, logger })
    const searcher = new Searcher(turns, monotonic, { scans: this.#scans })
    const foreign = new ForeignStatuses(logger)
    this.reader = new StoreReader({ instance, roles: this.#roles, searcher, foreign })
    const statuses = new StatusCache({ maxEntries: limits.cacheEntries, maxBytes: limits.cacheBytes })
    const metrics = new ProcessorMetrics(registry)
    metrics.initialize(instance)
    const clock = { now, monotonic, sleep }
    const reopen = () => stores.reopen(look).catch((error: unknown) => Promise.reject(unusable(folder, error)))
    const { retryMinMs, retryMaxMs } = limits
    const writer = new StoreWriter({ instance, metrics, logger, clock, retryMinMs, retryMaxMs, reopen })
    this.#space = new DiskSpaceMonitor({ writer, clock, probe: () => stores.probe() })
    const restorePriority = new RestorePriority(sleep)
    this.#builder = new IndexBuilder({ restorePriority, turns, logger, now: monotonic, sleep, retryMs: retryMaxMs })
    const inFlight = new InFlight(limits.inFlightRecords, sleep)
    const latency = new EndToEndLatency({ instance, metrics, logger, now })
    const shared = { statuses, turns, inFlight, restorePriority, writer, latency, metrics }
    this.#parts = { instance, log, clock, limits, logger, ...shared }
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
      // The folder is open, so this process holds its lock and may judge its content.
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
    void this.#refreshLags(ended.signal)
    void this.#space.watch(ended.signal)
    try {
      await this.#parts.log.join(this, signal)
    } finally {
      ended.abort()
    }
  }

  /** Never rejects. */
  async #refreshLags(signal: AbortSignal): Promise<void> {
    const { limits, clock, logger } = this.#parts
    for (;;) {
      await clock.sleep(limits.lagRefreshMs, signal)
      for (const [partition, role] of this.#roles) {
        if (signal.aborted) return
        await role.refreshLag().catch((error: unknown) => {
          // The log reports its own faults, and the role those of the store.
          logger.debug({ partition, err: error }, 'the partition cannot be looked at')
        })
      }
      if (signal.aborted) return
    }
  }

  /** Why it cannot work; a line each. */
  get problems(): readonly string[] {
    const { problems } = this.#parts.writer
    const { problem } = this.#space
    return problems.length > 0 || problem === undefined ? problems : [problem]
  }

  get unfit(): boolean {
    return this.#space.unfit
  }

  positions(): ReadonlyMap<number, Offset> {
    const { log, clock, writer } = this.#parts
    const positions = new Map<number, Offset>()
    for (const [partition, { store }] of this.#copies) {
      const { checkpoint } = store
      if (checkpoint === undefined) continue
      const isOld = mayLackTombstones(checkpoint.since, clock.now(), log.deleteRetentionMs)
      // The group compares standbys with the owner, so the owner's position stands.
      const isStuck = writer.isFailing(partition) && this.#roles.get(partition)?.kind === 'standby'
      positions.set(partition, isOld || isStuck ? 0 : checkpoint.changelog)
    }
    return positions
  }

  async active(claim: Claim, signal: AbortSignal): Promise<void> {
    const copy = await this.#takeUp(claim.partition, signal)
    if (copy !== undefined) await this.#play(claim.partition, new Task(this.#parts, claim, copy), signal)
  }

  async standby(partition: number, signal: AbortSignal, copying: Copying): Promise<void> {
    const copy = await this.#takeUp(partition, signal)
    if (copy !== undefined) await this.#play(partition, new Standby(this.#parts, partition, copy, copying), signal)
  }

  async #play(partition: number, role: Task | Standby, signal: AbortSignal): Promise<void> {
    this.#roles.set(partition, role)
    try {
      await role.run(signal)
    } finally {
      role.copy.waiters.release()
      // The next role on the partition may have begun.
      if (this.#roles.get(partition) === role) this.#roles.delete(partition)
    }
  }

  /** Copies left by an earlier process are warm, too: `positions` tells the group of them. */
  async #openCopies(): Promise<void> {
    await Promise.all((await this.#stores.partitions()).map((partition) => this.#copy(partition)))
  }

  /**
   * Waits for a full volume: leaving the group would only pass the partition to the next full volume. Undefined when
   * `signal` aborted first; rejects as `StoreWriter.persist` does.
   */
  async #takeUp(partition: number, signal: AbortSignal): Promise<PartitionCopy | undefined> {
    let copy = this.#copies.get(partition)
    if (copy !== undefined) return copy
    await this.#parts.writer.persist(partition, async () => void (copy = await this.#copy(partition)), signal)
    return copy
  }

  async #copy(partition: number): Promise<PartitionCopy> {
    const open = this.#copies.get(partition)
    if (open !== undefined) return open
    const store = await this.#stores.store(partition)
    const onWhole = () => this.#builder.take(partition, store)
    const progress = new RestoreProgress(this.#parts.clock.monotonic)
    const copy = { store, outcomes: new WriteOutcomes(), waiters: new PositionWaiters(), progress, onWhole }
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

/** Statuses are overwritten again and again: larger memtables write fewer tables, which leaves less to compact. */
const ROCKSDB = { writeBufferSize: inMemory(32 * 1024 * 1024), maxWriteBufferNumber: 3 }

/**
 * Begins to open the stores in `folder`: after kill -9 that takes up to a second, as RocksDB reads its write-ahead log.
 * `Processor.open` reports any failure.
 */
export function openDatabase(folder: string, { readOnly = false } = {}): Database {
  return new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer', ...ROCKSDB, readOnly })
}

/**
 * Wiping a store leaves the damaged block in its file. When compaction reads it, RocksDB refuses every further write to
 * the database, so only an empty folder helps.
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
