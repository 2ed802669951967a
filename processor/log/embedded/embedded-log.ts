import type { Logger } from 'pino'
import { Counter, Gauge, type Registry } from 'prom-client'
import { LogCorruptedError, type RetryableError } from '../../contract/errors.ts'
import type { OwnerMap } from '../../contract/query.ts'
import type { NewRecord, Offset } from '../../contract/record.ts'
import { pause } from '../../runtime/pause.ts'
import type { Batch, BatchLimits, Log, LogIdentity, Member, Partition, Position, Topic } from '../log.ts'
import { Cleaner } from './cleaner.ts'
import { EmbeddedFollower } from './follower.ts'
import { EmbeddedGroup } from './group.ts'
import { Pace } from './pace.ts'
import { EmbeddedPartition, storedEnd } from './partition.ts'
import { type Database, decodeNumbers, EmbeddedStorage, storageKey, unopenable } from './storage.ts'
import { EmbeddedUpkeep, Retention } from './upkeep.ts'
import { type ClaimPosition, EmbeddedWriter } from './writer.ts'

export class EmbeddedMetrics {
  readonly records: Readonly<Record<Topic, Counter.Internal>>
  readonly writes: Counter
  readonly fault: Gauge
  readonly retained: Counter<'topic'>
  readonly cleaned: Counter

  constructor(registry: Registry) {
    const registers = [registry]
    const counter = <L extends string>(name: string, help: string, labelNames: L[]) =>
      new Counter({ name, help, labelNames, registers })
    const records = counter('tidemark_log_records_total', 'Records appended to the log', ['topic'])
    this.records = {
      telemetry: records.labels('telemetry'),
      status: records.labels('status'),
      'dead-letters': records.labels('dead-letters'),
    }
    this.writes = counter('tidemark_log_writes_total', 'Atomic writes of the embedded log', [])
    this.retained = counter('tidemark_log_retention_bytes_total', 'Bytes of records removed by retention', ['topic'])
    this.cleaned = counter('tidemark_log_compaction_bytes_total', 'Bytes of records removed by compaction', [])
    this.fault = new Gauge({ name: 'tidemark_log_fault', help: '1 while the log cannot be written', registers })
  }
}

const MIB = 1024 * 1024
const HOUR_MS = 3_600_000
/** Bytes of records that a partition keeps in memory for readers at its end. */
const TAIL_BYTES = 2 * MIB
const DELETE_RETENTION_MS = 24 * HOUR_MS
/**
 * Milliseconds between two checks that the folder is in place. Records acknowledged after it went, and before a check,
 * are lost.
 */
const PLACE_MS = 1_000

export interface EmbeddedLogOptions {
  /** The folder is made if it is missing. One process at a time may have it open. */
  readonly folder: string
  /** Number of partitions of each topic; fixed when the folder is made. */
  readonly partitions: number
  /** Standbys of each partition. Default 1. */
  readonly standbys?: number
  /** Ages are in ms, bytes are per partition. Unprocessed records are kept beyond both. */
  readonly retention?: {
    /** Default 24 h and 1 GiB. */
    readonly telemetryMs?: number
    readonly telemetryBytes?: number
    /** Default 7 days; the size is bounded to 128 MiB. */
    readonly deadLettersMs?: number
  }
  readonly compaction?: {
    /** A changelog partition with fewer dirty bytes is left alone. Default 64 MiB. */
    readonly minDirtyBytes?: number
    /** Keys that one pass holds in memory. Default 250,000: about 30 MiB. */
    readonly maxKeys?: number
    /** Milliseconds that a tombstone stays after its first compaction. Default 24 h. */
    readonly deleteRetentionMs?: number
  }
  /** Beyond this many bytes of queued appends, append rejects with LOG_UNAVAILABLE. Default 32 MiB. */
  readonly maxQueuedBytes?: number
  /** Bytes of a segment, which retention removes whole. Default 4 MiB. */
  readonly segmentBytes?: number
  /** Records that each partition keeps in memory for readers at its end, within TAIL_BYTES. Default 8192. */
  readonly tailRecords?: number
  /** Bytes that must be free on a volume that was full before writes are tried again. Default 32 MiB. */
  readonly minFreeBytes?: number
  /** Milliseconds that a role may take to end before its partition goes on without it. Default 10 s. */
  readonly revokeTimeoutMs?: number
  /** Makes the database at a path. Default: RocksDB. */
  readonly database?: (path: string) => Database
  readonly logger: Logger
  readonly registry: Registry
  /** Epoch milliseconds. */
  readonly now?: () => number
  /** Milliseconds of a clock that nobody sets. */
  readonly monotonic?: () => number
}

/**
 * The log of one process, in a folder, on RocksDB. All members of the group are in this process.
 * Values given to append and commit are kept by reference for a while and must not be changed afterwards. Values that
 * readers get may be views of larger buffers.
 */
export class EmbeddedLog implements Log {
  readonly identity: LogIdentity
  readonly deleteRetentionMs: number
  /**
   * Commits made at the same time share one write. At 10 ms the other costs of commits took a third of the process's
   * time.
   */
  readonly maxGatherMs = 25
  readonly #storage: EmbeddedStorage
  readonly #partitions: Readonly<Record<Topic, readonly EmbeddedPartition[]>>
  readonly #positions: ClaimPosition[] = []
  readonly #cleaners: readonly Cleaner[]
  readonly #writer: EmbeddedWriter
  readonly #pace: Pace
  readonly #group: EmbeddedGroup
  readonly #upkeep: EmbeddedUpkeep
  readonly #upkeepEnded: Promise<void>
  readonly #watchEnded: Promise<void>
  readonly #closing = new AbortController()
  #closed: Promise<void> | undefined

  /**
   * Rejects with ConfigurationError: FOLDER_UNAVAILABLE, STORE_LOCKED when another process has the folder, LOG_MISMATCH
   * when the log was made with another number of partitions, LOG_CORRUPTED when it is damaged.
   */
  static async open(options: EmbeddedLogOptions): Promise<EmbeddedLog> {
    const storage = await EmbeddedStorage.open(options.folder, options.database)
    try {
      const identity = await storage.identity(options.partitions)
      const log = new EmbeddedLog(storage, identity, options)
      await log.#reload()
      return log
    } catch (error) {
      await storage.close()
      throw error instanceof LogCorruptedError ? unopenable(storage.folder, error) : error
    }
  }

  private constructor(storage: EmbeddedStorage, identity: LogIdentity, options: EmbeddedLogOptions) {
    const { logger, now = Date.now, monotonic = () => performance.now(), retention = {}, compaction = {} } = options
    const { segmentBytes = 4 * MIB, tailRecords = 8192 } = options
    const bounds = { segmentBytes, tailRecords, tailBytes: TAIL_BYTES }
    const all = (topic: Topic) => {
      return Array.from({ length: identity.partitions }, (_, i) => new EmbeddedPartition(topic, i, bounds))
    }
    const metrics = new EmbeddedMetrics(options.registry)
    this.identity = identity
    this.deleteRetentionMs = compaction.deleteRetentionMs ?? DELETE_RETENTION_MS
    this.#storage = storage
    this.#partitions = { telemetry: all('telemetry'), status: all('status'), 'dead-letters': all('dead-letters') }
    this.#writer = new EmbeddedWriter(storage, {
      partitions: this.#partitions,
      positions: this.#positions,
      maxQueuedBytes: options.maxQueuedBytes ?? 32 * MIB,
      minFreeBytes: options.minFreeBytes ?? 32 * MIB,
      logger,
      metrics,
      onRoll: () => this.#upkeep.wake(),
      onCommit: (partition) => this.#pace.committed(partition),
      reopen: () => this.#reopen(),
    })
    // This is well within the tails, so records are still in memory, and young, when they are processed.
    const maxBacklog = (tailRecords / 8) * identity.partitions
    this.#pace = new Pace(this.#partitions.telemetry, this.#positions, maxBacklog, monotonic)
    this.#group = new EmbeddedGroup(this.#writer, {
      partitions: identity.partitions,
      standbys: options.standbys ?? 1,
      revokeTimeoutMs: options.revokeTimeoutMs ?? 10_000,
      logger,
    })
    const { minDirtyBytes = 64 * MIB, maxKeys = 250_000, deleteRetentionMs = DELETE_RETENTION_MS } = compaction
    this.#cleaners = this.#partitions.status.map((partition) => {
      return new Cleaner(storage, partition, { minDirtyBytes, maxKeys, deleteRetentionMs, now })
    })
    const telemetry = { ms: retention.telemetryMs ?? 24 * HOUR_MS, bytes: retention.telemetryBytes ?? 1024 * MIB }
    const dead = { ms: retention.deadLettersMs ?? 168 * HOUR_MS, bytes: 128 * MIB }
    const retained = [
      ...this.#partitions.telemetry.map((p) => [p, new Retention(storage, p, telemetry, logger)] as const),
      ...this.#partitions['dead-letters'].map((p) => [p, new Retention(storage, p, dead, logger)] as const),
    ]
    this.#upkeep = new EmbeddedUpkeep({
      retained,
      cleaners: this.#partitions.status.map((partition, i) => [partition, this.#cleaners[i] as Cleaner]),
      positions: this.#positions,
      faulty: () => this.#writer.fault !== undefined,
      logger,
      metrics,
      now,
      monotonic,
    })
    this.#upkeepEnded = this.#upkeep.run(this.#closing.signal)
    this.#watchEnded = this.#watch(this.#closing.signal)
  }

  get fault(): Error | undefined {
    return this.#writer.fault
  }

  /** All partitions are on one volume. */
  faultAt(): Error | undefined {
    return this.fault
  }

  get relief(): Promise<void> | undefined {
    return this.#pace.relief
  }

  append(topic: 'telemetry' | 'dead-letters', records: readonly NewRecord[]): Promise<void> {
    return this.#writer.append(topic, records)
  }

  write(record: NewRecord): Promise<Position> {
    return this.#writer.write(record)
  }

  follow(at: Partition, from: Offset, limits: BatchLimits, signal: AbortSignal): AsyncIterable<Batch> {
    const follower = new EmbeddedFollower(this.#partition(at), this.#storage, this.#closing.signal)
    return follower.follow(from, limits, signal)
  }

  async bounds(of: Partition): Promise<{ start: Offset; end: Offset }> {
    const { start, end } = this.#partition(of)
    return { start, end }
  }

  join(member: Member, signal: AbortSignal): Promise<void> {
    return this.#group.join(member, signal)
  }

  async owners(): Promise<OwnerMap> {
    return this.#group.owners()
  }

  /**
   * Takes a member out of the group as if its session had timed out, without telling its roles. It joins again when one
   * of them finds itself fenced, but never if it is `dead`.
   */
  evict(instance: string, { dead = false } = {}): void {
    this.#group.evict(instance, dead)
  }

  /** Applies retention now, and compacts the changelog whether or not that is due. */
  tidy(): Promise<void> {
    return this.#upkeep.round(this.#closing.signal, true)
  }

  /** Ends the roles, writes what is queued, and closes the folder. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    await this.#group.close()
    const written = this.#writer.close()
    this.#pace.close()
    this.#closing.abort()
    this.#storage.end()
    for (const partition of Object.values(this.#partitions).flat()) partition.wake()
    await Promise.all([written, this.#upkeepEnded, this.#watchEnded])
    await this.#storage.close()
  }

  async #watch(signal: AbortSignal): Promise<void> {
    while (this.#storage.hasPlace && !signal.aborted) {
      await this.#storage.checkPlace().catch((error: RetryableError) => this.#writer.doubt(error))
      await pause(PLACE_MS, signal)
    }
  }

  #partition({ topic, index }: Partition): EmbeddedPartition {
    const partition = this.#partitions[topic][index]
    if (partition === undefined) throw new RangeError(`there is no partition ${index} of ${topic}`)
    return partition
  }

  async #reopen(): Promise<void> {
    await this.#storage.reopen((db) => this.#isComplete(db))
    await this.#reload()
  }

  /** True when the database holds all acknowledged writes. */
  async #isComplete(db: Database): Promise<boolean> {
    for (const [index, known] of this.#positions.entries()) {
      const { epoch, input, changelogEnd } = await storedPosition(db, index)
      if (epoch < known.epoch || input < known.input || changelogEnd < known.changelogEnd) return false
    }
    for (const { topic, index, end } of Object.values(this.#partitions).flat()) {
      if ((await storedEnd(db, topic, index)) < end) return false
    }
    return true
  }

  async #reload(): Promise<void> {
    await this.#storage.use(async (db) => {
      for (const cleaner of this.#cleaners) await cleaner.load(db)
      for (let index = 0; index < this.identity.partitions; index++) {
        this.#positions[index] = await storedPosition(db, index)
      }
      for (const partition of Object.values(this.#partitions).flat()) {
        const { topic, index } = partition
        await partition.load(db, topic === 'status' ? (this.#cleaners[index] as Cleaner).cleanedTo : 0)
      }
    })
  }
}

async function storedPosition(db: Database, index: number): Promise<ClaimPosition> {
  const stored = await db.get(storageKey('position', 'telemetry', index))
  const [epoch = 0, input = 0, changelogEnd = 0] = stored === undefined ? [] : decodeNumbers(stored)
  return { epoch, input, changelogEnd }
}
