import type { LogRecord, NewRecord, Offset } from '../../contract/record.ts'
import type { Batch, BatchLimits, Topic } from '../log.ts'
import { type Arena, BatchReader, sizeBound } from './record-batch.ts'
import {
  type Database,
  decodeNumbers,
  encodeNumbers,
  type Operation,
  offsetOfKey,
  storageKey,
  storageRange,
} from './storage.ts'

/** A batch is decoded in one go, so its size bounds how long that takes. */
const MAX_BATCH_BYTES = 512 * 1024

export interface PartitionOptions {
  readonly segmentBytes: number
  /** The tail drops older records beyond these bounds. */
  readonly tailRecords: number
  readonly tailBytes: number
}

/** A run of batches; retention and compaction count in segments. */
export interface Segment {
  readonly base: Offset
  end: Offset
  bytes: number
  /** Newest timestamp of its records, epoch ms. */
  newest: number
}

export interface Reader {
  at: Offset
}

interface Chunk {
  readonly base: Offset
  readonly records: LogRecord[]
  readonly bytes: number
}

/** Counts bytes of a record as batch limits do. */
export function bytesOf(record: NewRecord): number {
  return (record.key?.length ?? 0) + (record.value?.byteLength ?? 0)
}

/** Returns the end of the last batch in the database, or 0 without one. */
export async function storedEnd(db: Database, topic: Topic, index: number): Promise<Offset> {
  const [last] = await db.iterator({ ...storageRange('batch', topic, index), reverse: true, limit: 1 }).all()
  return last === undefined ? 0 : new BatchReader(last[1], offsetOfKey(last[0])).end
}

/** One partition of one topic, with its bounds, its tail, and its part of the next write. Only the writer stages. */
export class EmbeddedPartition {
  readonly topic: Topic
  readonly index: number
  readonly #options: PartitionOptions
  /** These bounds are durable. The changelog starts at 0 whatever compaction has removed. */
  start: Offset = 0
  end: Offset = 0
  /** The closed segments come first, oldest first, then the open one. */
  segments: Segment[] = [emptySegment(0)]
  /** Records of the next write, and their size bound. */
  #staged: NewRecord[] = []
  #bound = 0
  /** Newest records that some reader still has to read; kept decoded. */
  #tail: Chunk[] = []
  readonly #readers = new Set<Reader>()
  #tailRecords = 0
  #tailBytes = 0
  #waiting = new Set<() => void>()

  constructor(topic: Topic, index: number, options: PartitionOptions) {
    this.topic = topic
    this.index = index
    this.#options = options
  }

  /**
   * Takes bounds and segments from the database, also after a write whose outcome is unknown. No segment counts the
   * records before `cleanedTo`, which are compacted.
   */
  async load(db: Database, cleanedTo: Offset): Promise<void> {
    const { topic, index } = this
    const range = storageRange('batch', topic, index)
    const [first] = await db.keys({ ...range, limit: 1 }).all()
    const end = await storedEnd(db, topic, index)
    if (topic !== 'status') this.start = first === undefined ? end : offsetOfKey(first)
    this.segments = []
    for await (const [key, value] of db.iterator(storageRange('segment', topic, index))) {
      const [segmentEnd = 0, bytes = 0, newest = 0] = decodeNumbers(value)
      // A crash may come between the deletes of a segment's records and of its entry.
      if (segmentEnd > this.start) this.segments.push({ base: offsetOfKey(key), end: segmentEnd, bytes, newest })
    }
    const open = emptySegment(Math.max(this.segments.at(-1)?.end ?? this.start, cleanedTo))
    const gte = storageKey('batch', topic, index, open.base)
    for await (const [key, value] of db.iterator({ gte, lt: range.lt })) {
      extend(open, new BatchReader(value, offsetOfKey(key)))
    }
    this.segments.push(open)
    this.#staged = []
    this.#bound = 0
    if (end !== this.end) {
      this.#tail = []
      this.#tailRecords = 0
      this.#tailBytes = 0
      this.end = end
      this.wake()
    }
  }

  get bytes(): number {
    return this.segments.reduce((sum, segment) => sum + segment.bytes, 0)
  }

  get stagedEnd(): Offset {
    return this.end + this.#staged.length
  }

  /** Returns true for the first record of a write. */
  stage(record: NewRecord, bound = sizeBound(record)): boolean {
    this.#bound += bound
    return this.#staged.push(record) === 1
  }

  /** Adds the staged records to a write. Returns true when that closes a segment. */
  encode(operations: Operation[], arena: Arena): boolean {
    const staged = this.#staged
    let rolled = false
    let from = 0
    while (from < staged.length) {
      let to = staged.length
      let bound = this.#bound
      if (from > 0 || bound > MAX_BATCH_BYTES) {
        bound = 0
        to = from
        while (to < staged.length) {
          const size = sizeBound(staged[to] as NewRecord)
          if (to > from && bound + size > MAX_BATCH_BYTES) break
          bound += size
          to++
        }
      }
      const base = this.end + from
      const value = arena.encode(staged, from, to, bound)
      operations.push({ type: 'put', key: storageKey('batch', this.topic, this.index, base), value })
      if (this.#grow(new BatchReader(value, base), operations)) rolled = true
      from = to
    }
    return rolled
  }

  /** The staged records are durable: readers may see them. */
  publish(): void {
    const staged = this.#staged
    const base = this.end
    this.#staged = []
    this.#bound = 0
    this.end = base + staged.length
    if (this.#readers.size > 0) this.#remember(base, staged)
    this.wake()
  }

  read(reader: Reader): void {
    this.#readers.add(reader)
  }

  leave(reader: Reader): void {
    this.#readers.delete(reader)
    this.#forget()
  }

  /** Records that all readers have passed are dropped while they are young, which costs the collector least. */
  pass(reader: Reader, at: Offset): void {
    reader.at = at
    this.#forget()
  }

  #remember(base: Offset, staged: readonly NewRecord[]): void {
    const records: LogRecord[] = []
    let bytes = 0
    for (const { key, value, timestamp, headers } of staged) {
      records.push({ offset: base + records.length, key, value, timestamp, headers })
      bytes += (key?.length ?? 0) + (value?.byteLength ?? 0)
    }
    this.#tail.push({ base, records, bytes })
    this.#tailRecords += records.length
    this.#tailBytes += bytes
    const { tailRecords, tailBytes } = this.#options
    while (this.#tailRecords > tailRecords || this.#tailBytes > tailBytes) this.#drop()
  }

  #forget(): void {
    let passed = Number.POSITIVE_INFINITY
    for (const reader of this.#readers) passed = Math.min(passed, reader.at)
    for (
      let head = this.#tail[0];
      head !== undefined && head.base + head.records.length <= passed;
      head = this.#tail[0]
    ) {
      this.#drop()
    }
  }

  #drop(): void {
    const dropped = this.#tail.shift() as Chunk
    this.#tailRecords -= dropped.records.length
    this.#tailBytes -= dropped.bytes
  }

  /** Returns a batch from memory, or undefined when `from` lies before the tail. */
  tail(from: Offset, limits: BatchLimits): Batch | undefined {
    const tail = this.#tail
    let at = tail.length - 1
    while (at >= 0 && (tail[at] as Chunk).base > from) at--
    if (at < 0) return undefined
    const first = tail[at] as Chunk
    if (at === tail.length - 1 && first.base === from && fits(first, limits)) {
      return { records: first.records, next: this.end, end: this.end }
    }
    const records: LogRecord[] = []
    let bytes = 0
    let i = from - first.base
    for (; at < tail.length; at++, i = 0) {
      const chunk = (tail[at] as Chunk).records
      for (; i < chunk.length; i++) {
        const record = chunk[i] as LogRecord
        bytes += bytesOf(record)
        if (records.length > 0 && (bytes > limits.maxBytes || records.length >= limits.maxRecords)) {
          return { records, next: record.offset, end: this.end }
        }
        records.push(record)
      }
    }
    return { records, next: this.end, end: this.end }
  }

  /** Calls `wake` once, at the next change of the bounds. */
  onChange(wake: () => void): void {
    this.#waiting.add(wake)
  }

  wake(): void {
    if (this.#waiting.size === 0) return
    const waiting = this.#waiting
    this.#waiting = new Set()
    for (const wake of waiting) wake()
  }

  #grow(batch: BatchReader, operations: Operation[]): boolean {
    const open = this.segments.at(-1) as Segment
    extend(open, batch)
    if (open.bytes < this.#options.segmentBytes) return false
    const value = encodeNumbers(open.end, open.bytes, open.newest)
    operations.push({ type: 'put', key: storageKey('segment', this.topic, this.index, open.base), value })
    this.segments.push(emptySegment(open.end))
    return true
  }
}

function emptySegment(base: Offset): Segment {
  return { base, end: base, bytes: 0, newest: Number.NEGATIVE_INFINITY }
}

function extend(segment: Segment, batch: BatchReader): void {
  segment.end = batch.end
  segment.bytes += batch.bytes.length
  if (batch.newest > segment.newest) segment.newest = batch.newest
}

function fits(chunk: Chunk, limits: BatchLimits): boolean {
  return chunk.records.length <= limits.maxRecords && chunk.bytes <= limits.maxBytes
}
