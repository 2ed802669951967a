import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import type { Offset } from '../../contract/record.ts'
import type { EmbeddedPartition } from './partition.ts'
import { BatchBuilder, BatchReader } from './record-batch.ts'
import {
  type Database,
  decodeNumbers,
  type EmbeddedStorage,
  encodeNumbers,
  type Operation,
  offsetOfKey,
  storageKey,
  storageRange,
} from './storage.ts'

/** Milliseconds that background work takes at a time. */
const SLICE_MS = 1
/** Background work rests for this many times as long as it took. */
const REST = 12
/** Milliseconds that a rest lasts at most, as after a slice that waited for the disk. */
const MAX_REST_MS = 100

/** Leaves most of the event loop's time to others, whose answers need several turns. */
export class Leisure {
  readonly #signal: AbortSignal
  readonly #hurried: () => boolean
  #since = performance.now()

  /** While `hurried` returns true, the event loop gets one turn between slices. */
  constructor(hurried: () => boolean, signal: AbortSignal) {
    this.#hurried = hurried
    this.#signal = signal
  }

  /** Await it between two steps that take well under a slice each. */
  pause(): Promise<void> | undefined {
    const took = performance.now() - this.#since
    return took < SLICE_MS ? undefined : this.#rest(took)
  }

  async #rest(took: number): Promise<void> {
    if (this.#hurried()) await turn()
    // An abort ends the rest early.
    else await delay(Math.min(took * REST, MAX_REST_MS), undefined, { signal: this.#signal }).catch(() => undefined)
    this.#since = performance.now()
  }
}

/** Batches grow to about this size; a batch of half of it is left alone when no record goes from it. */
const TARGET_BYTES = 256 * 1024
const LEAVE_BYTES = TARGET_BYTES / 2
/** Records that are examined or copied in one step. */
const STEP = 256
/** A partition with this many times the dirty bytes that make it due is compacted without rests. */
const HURRY = 2
/** A record goes or stays; any other number is the time at which a tombstone may be deleted. */
const DROP = -1
const KEEP = 0

export interface CleanerOptions {
  /** A partition is compacted when its dirty bytes exceed both this and its clean bytes. */
  readonly minDirtyBytes: number
  /** Keys that one pass may hold in memory. A pass that meets more cleans up to there, and another follows. */
  readonly maxKeys: number
  /** Milliseconds that a tombstone stays after its first compaction, so that followers can reach it. */
  readonly deleteRetentionMs: number
  readonly now: () => number
}

/**
 * Compacts the changelog by key, as Kafka's log cleaner does. It first learns the newest offset of each key in the
 * dirty part. Then it rewrites all batches before the end of that part, some at a time and in order, without superseded
 * records. Each step is one atomic write, so a crash leaves a correct log that is less compact. Offsets stay the same.
 * The last batch is never touched: the end of the partition is read from it.
 */
export class Cleaner {
  readonly #storage: EmbeddedStorage
  readonly #partition: EmbeddedPartition
  readonly #options: CleanerOptions
  /** All records before this offset are clean, and take #cleanBytes. */
  cleanedTo: Offset = 0
  #cleanBytes = 0

  constructor(storage: EmbeddedStorage, partition: EmbeddedPartition, options: CleanerOptions) {
    this.#storage = storage
    this.#partition = partition
    this.#options = options
  }

  async load(db: Database): Promise<void> {
    const stored = await db.get(this.#key())
    const [cleanedTo = 0, cleanBytes = 0] = stored === undefined ? [] : decodeNumbers(stored)
    this.cleanedTo = cleanedTo
    this.#cleanBytes = cleanBytes
  }

  get due(): boolean {
    return this.#exceeds(1)
  }

  #exceeds(times: number): boolean {
    return this.#partition.bytes > times * Math.max(this.#options.minDirtyBytes, this.#cleanBytes)
  }

  /** Runs one pass. Resolves with the bytes won, or undefined when there was nothing to clean. */
  async clean(signal: AbortSignal): Promise<number | undefined> {
    const leisure = new Leisure(() => this.#exceeds(HURRY), signal)
    const limit = await this.#lastBatch()
    if (limit === undefined || limit <= this.cleanedTo) return undefined
    const newest = new Map<string, Offset>()
    // A pass that failed after its last write may have left no batch in between.
    let end = limit
    for await (const reader of this.#batches(this.cleanedTo, limit)) {
      for (let i = 0; reader.next(); i++) {
        if (i % STEP === 0) await leisure.pause()
        newest.set(reader.key ?? '', reader.offset)
      }
      if (signal.aborted) return undefined
      if (newest.size < this.#options.maxKeys) continue
      end = reader.end
      break
    }
    return this.#rewrite(newest, end, leisure, signal)
  }

  async #rewrite(
    newest: ReadonlyMap<string, Offset>,
    end: Offset,
    leisure: Leisure,
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const rewriting = new Rewriting(this.#partition, newest, leisure, this.#options)
    for await (const reader of this.#batches(0, end)) {
      if (signal.aborted) return undefined
      const operations = await rewriting.take(reader)
      if (operations.length > 0) await this.#write(operations)
    }
    const { topic, index } = this.#partition
    const operations = rewriting.finish()
    for (const segment of this.#partition.segments) {
      if (segment.end <= end) operations.push({ type: 'del', key: storageKey('segment', topic, index, segment.base) })
    }
    operations.push({ type: 'put', key: this.#key(), value: encodeNumbers(end, rewriting.bytesAfter) })
    await this.#write(operations)
    this.#partition.segments = this.#partition.segments.filter((segment) => segment.end > end || segment.bytes === 0)
    this.cleanedTo = end
    this.#cleanBytes = rewriting.bytesAfter
    return rewriting.bytesBefore - rewriting.bytesAfter
  }

  async #write(operations: Operation[]): Promise<void> {
    await this.#storage.write(operations)
    for (const operation of operations) if (operation.type === 'put') this.#storage.release(operation.value)
  }

  #key(): Buffer {
    return storageKey('cleaned', this.#partition.topic, this.#partition.index)
  }

  async #lastBatch(): Promise<Offset | undefined> {
    const { topic, index, end } = this.#partition
    // A write past the end has not been answered yet, or nobody knows its outcome.
    const range = { ...storageRange('batch', topic, index), lt: storageKey('batch', topic, index, end) }
    const [last] = await this.#storage.use((db) => db.keys({ ...range, reverse: true, limit: 1 }).all())
    return last === undefined ? undefined : offsetOfKey(last)
  }

  /** Yields the batches from `from` on that begin before `end`. Each is valid until the next is asked for. */
  async *#batches(from: Offset, end: Offset): AsyncGenerator<BatchReader> {
    const { topic, index } = this.#partition
    const range = { gte: storageKey('batch', topic, index, from), lt: storageKey('batch', topic, index, end) }
    // An iterator sees the state at its start, so rewrites behind it do not disturb it.
    for await (const [key, value] of await this.#storage.use(async (db) => db.iterator(range))) {
      yield new BatchReader(value, offsetOfKey(key))
      this.#storage.release(value)
    }
  }
}

/** Turns batches into fewer and smaller ones. */
class Rewriting {
  readonly #partition: EmbeddedPartition
  readonly #newest: ReadonlyMap<string, Offset>
  readonly #leisure: Leisure
  readonly #options: CleanerOptions
  bytesBefore = 0
  bytesAfter = 0
  /** #builder builds a batch from the batches at these keys. */
  #builder: BatchBuilder | undefined
  #sources: Buffer[] = []
  /** Bytes of the only source, while no record has gone from it; such a source stays as it is. */
  #intact = 0

  constructor(
    partition: EmbeddedPartition,
    newest: ReadonlyMap<string, Offset>,
    leisure: Leisure,
    options: CleanerOptions,
  ) {
    this.#partition = partition
    this.#newest = newest
    this.#leisure = leisure
    this.#options = options
  }

  /** Takes the next batch in order, and returns the write that is due, if any. */
  async take(reader: BatchReader): Promise<Operation[]> {
    this.bytesBefore += reader.bytes.length
    const fates = await this.#plan(reader)
    const intact = fates.every((fate) => fate === KEEP)
    let operations: Operation[] = []
    const full = this.#builder !== undefined && this.#builder.size + reader.bytes.length > TARGET_BYTES
    const alone = intact && reader.bytes.length >= LEAVE_BYTES
    if (full || alone || this.#builder?.reaches(reader.end) === false) operations = this.finish()
    if (alone) {
      this.bytesAfter += reader.bytes.length
      return operations
    }
    const builder = (this.#builder ??= new BatchBuilder(reader.base, TARGET_BYTES))
    this.#intact = intact && this.#sources.length === 0 ? reader.bytes.length : 0
    this.#sources.push(storageKey('batch', this.#partition.topic, this.#partition.index, reader.base))
    const copied = new BatchReader(reader.bytes, reader.base)
    for (let i = 0; copied.next(); i++) {
      if (i % STEP === 0) await this.#leisure.pause()
      const fate = fates[i] as number
      if (fate !== DROP) builder.add(copied, fate === KEEP ? undefined : fate)
    }
    builder.cover(reader.end)
    return operations
  }

  finish(): Operation[] {
    const builder = this.#builder
    const sources = this.#sources
    const intact = this.#intact
    this.#builder = undefined
    this.#sources = []
    this.#intact = 0
    if (builder === undefined) return []
    this.bytesAfter += intact
    if (intact > 0) return []
    const operations: Operation[] = sources.map((key) => ({ type: 'del', key }))
    if (builder.count > 0) {
      const value = builder.finish()
      this.bytesAfter += value.length
      // The batch has the key of its first source. Of two operations on a key the later one holds.
      operations.push({ type: 'put', key: sources[0] as Buffer, value })
    }
    return operations
  }

  /** Decides for each record: it goes, it stays, or it stays until a time that is noted on it. */
  async #plan(reader: BatchReader): Promise<number[]> {
    const fates: number[] = []
    const now = this.#options.now()
    for (let i = 0; reader.next(); i++) {
      if (i % STEP === 0) await this.#leisure.pause()
      const newest = this.#newest.get(reader.key ?? '')
      if (newest !== undefined && newest > reader.offset) fates.push(DROP)
      else if (!reader.tombstone) fates.push(KEEP)
      else if (reader.deleteAt === undefined) fates.push(now + this.#options.deleteRetentionMs)
      else fates.push(reader.deleteAt > now ? KEEP : DROP)
    }
    return fates
  }
}
