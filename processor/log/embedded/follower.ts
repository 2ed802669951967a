import { LogCorruptedError, OffsetOutOfRangeError, RetryableError } from '../../contract/errors.ts'
import type { LogRecord, Offset } from '../../contract/record.ts'
import type { Batch, BatchLimits } from '../log.ts'
import { bytesOf, type EmbeddedPartition } from './partition.ts'
import { BatchReader } from './record-batch.ts'
import { type Database, type EmbeddedStorage, offsetOfKey, storageKey, storageRange } from './storage.ts'

/** Bytes that are read from the database and decoded at a time, about. */
const CHUNK_BYTES = 512 * 1024
/** The number of batches bounds a read, too, as each may be much larger than the one before. */
const MAX_ENTRIES = 32

/** Follows one partition: it reads from memory at the tail, and from the database before that. */
export class EmbeddedFollower {
  readonly #partition: EmbeddedPartition
  readonly #storage: EmbeddedStorage
  readonly #closed: AbortSignal
  /** Entries that are not decoded yet. */
  #entries: [Buffer, Buffer][] = []
  /** Records that are decoded; the first #given of them were returned. */
  #decoded: LogRecord[] = []
  #given = 0
  #decodedEnd: Offset = 0
  /** The estimate starts at the most an entry may have, as partitions that are far behind all begin at once. */
  #bytesPerEntry = CHUNK_BYTES

  constructor(partition: EmbeddedPartition, storage: EmbeddedStorage, closed: AbortSignal) {
    this.#partition = partition
    this.#storage = storage
    this.#closed = closed
  }

  async *follow(start: Offset, limits: BatchLimits, signal: AbortSignal): AsyncGenerator<Batch> {
    const partition = this.#partition
    const wake = () => partition.wake()
    signal.addEventListener('abort', wake, { once: true })
    const reader = { at: start }
    partition.read(reader)
    try {
      let from = start
      while (!signal.aborted) {
        if (this.#closed.aborted) throw new RetryableError('LOG_CLOSED', 'the log was closed')
        this.#check(from)
        if (from === partition.end) {
          await new Promise<void>((resolve) => partition.onChange(resolve))
          continue
        }
        const batch = this.#rest(from, limits) ?? this.#tail(from, limits) ?? (await this.#read(from, limits, signal))
        if (signal.aborted) return
        from = batch.next
        yield batch
        partition.pass(reader, from)
      }
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      partition.leave(reader)
      signal.removeEventListener('abort', wake)
    }
  }

  #check(from: Offset): void {
    const { topic, index, start, end } = this.#partition
    if (from >= start && from <= end) return
    const what = from < start ? 'is below what retention left' : 'is past the end'
    const where = `offset ${from} of ${topic} ${index} ${what} (${start} to ${end})`
    throw new OffsetOutOfRangeError(`${where}: wipe the copy that reads from there`)
  }

  #rest(from: Offset, limits: BatchLimits): Batch | undefined {
    const decoded = this.#decoded
    let to = this.#given
    if (to >= decoded.length || (decoded[to] as LogRecord).offset < from) return undefined
    const last = Math.min(decoded.length, to + Math.max(1, limits.maxRecords))
    let bytes = 0
    while (to < last) {
      bytes += bytesOf(decoded[to] as LogRecord)
      if (to > this.#given && bytes > limits.maxBytes) break
      to++
    }
    const records = decoded.slice(this.#given, to)
    this.#given = to
    const end = this.#partition.end
    if (to < decoded.length) return { records, next: (decoded[to] as LogRecord).offset, end }
    this.#decoded = []
    this.#given = 0
    return { records, next: this.#decodedEnd, end }
  }

  #tail(from: Offset, limits: BatchLimits): Batch | undefined {
    const batch = this.#partition.tail(from, limits)
    if (batch !== undefined && this.#entries.length > 0) this.#entries = []
    return batch
  }

  async #read(from: Offset, limits: BatchLimits, signal: AbortSignal): Promise<Batch> {
    if (this.#entries.length === 0) this.#entries = await this.#storage.use((db) => this.#fetch(db, from), signal)
    // Retention may have removed `from` meanwhile.
    this.#check(from)
    this.#decode(from)
    return this.#rest(from, limits) ?? { records: [], next: this.#decodedEnd, end: this.#partition.end }
  }

  async #fetch(db: Database, from: Offset): Promise<[Buffer, Buffer][]> {
    const { topic, index, end } = this.#partition
    const key = storageKey('batch', topic, index, from)
    // Compaction may merge the batch that holds `from` into an earlier one between two reads.
    const snapshot = db.snapshot()
    try {
      const { gte } = storageRange('batch', topic, index)
      const [floor] = await db.keys({ gte, lte: key, reverse: true, limit: 1, snapshot }).all()
      const size = Math.min(MAX_ENTRIES, Math.max(1, Math.round(CHUNK_BYTES / this.#bytesPerEntry)))
      // A write past the end has not been answered yet.
      const lt = storageKey('batch', topic, index, end)
      // In a gap that compaction left, the floor ends before `from`, and the records asked for come after it.
      return await db.iterator({ gte: floor ?? key, lt, limit: size + 1, snapshot }).all()
    } finally {
      await snapshot.close()
    }
  }

  #decode(from: Offset): void {
    const records: LogRecord[] = []
    let bytes = 0
    let used = 0
    let end = from
    while (used < this.#entries.length && bytes < CHUNK_BYTES) {
      const [key, value] = this.#entries[used++] as [Buffer, Buffer]
      const reader = new BatchReader(value, offsetOfKey(key))
      if (reader.end <= from) continue
      while (reader.next()) if (reader.offset >= from) records.push(reader.record())
      bytes += value.length
      end = reader.end
    }
    if (end === from) this.#lost(from)
    this.#bytesPerEntry = bytes / used
    this.#entries.splice(0, used)
    this.#decoded = records
    this.#given = 0
    this.#decodedEnd = end
  }

  #lost(from: Offset): never {
    const { topic, index, end } = this.#partition
    const what = `${topic} ${index} has no records from offset ${from} on, though it ends at ${end}`
    throw new LogCorruptedError(`${what}: restore the log's folder`)
  }
}
