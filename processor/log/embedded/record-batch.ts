import { LogCorruptedError } from '../../contract/errors.ts'
import type { Headers, LogRecord, NewRecord, Offset } from '../../contract/record.ts'

/**
 * Many records of one partition as one value of the database, little-endian:
 *
 *   batch   version u8 | records u32 | span u32 (end - base offset) | newest timestamp f64 | records…
 *   record  length u32 (after itself) | offset - base u32 | timestamp f64 | flags u8 | key length u16
 *           [| delete at f64] | key [| headers] | value
 *   headers count u8, then per header: name length u16 | name | value length u32 | value
 *
 * Nothing in a record but its second field depends on the batch, so compaction moves records as they are. RocksDB keeps
 * checksums of all it stores; here only the lengths must add up.
 */
/** Version of the batch format. */
const VERSION = 1
const BATCH_HEADER = 17
const COUNT_AT = 1
const SPAN_AT = 5
const TIMESTAMP_AT = 9
const RECORD_HEADER = 19

const HAS_KEY = 1
const HAS_VALUE = 2
const HAS_HEADERS = 4
const HAS_DELETE_AT = 8

export const MAX_KEY_BYTES = 0xffff
const MAX_SPAN = 0xffffffff

/** Returns the most bytes that `record` may take in a batch. */
export function sizeBound(record: NewRecord): number {
  // UTF-8 takes at most three bytes per UTF-16 code unit. Headers count, too: one holds the client's own topic.
  let size = RECORD_HEADER + (record.key === null ? 0 : record.key.length * 3) + (record.value?.byteLength ?? 0)
  if (record.headers !== undefined) {
    size++
    for (const name in record.headers) {
      size += 6 + Buffer.byteLength(name) + Buffer.byteLength(record.headers[name] as string)
    }
  }
  return size
}

const FIRST_BYTES = 64 * 1024

/**
 * Memory for the batches of one write, which the next write uses again: new buffers would keep the collector busy. It
 * doubles when a write did not fit, up to `maxBytes`.
 */
export class Arena {
  readonly #maxBytes: number
  #buffer: Buffer
  #used = 0
  #overflowed = false

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
    this.#buffer = Buffer.allocUnsafeSlow(Math.min(FIRST_BYTES, maxBytes))
  }

  /** The batches of the last write are not needed any more. */
  reset(): void {
    this.#used = 0
    const { length } = this.#buffer
    if (!this.#overflowed || length === this.#maxBytes) return
    this.#buffer = Buffer.allocUnsafeSlow(Math.min(2 * length, this.#maxBytes))
    this.#overflowed = false
  }

  /**
   * Encodes records at consecutive offsets from a base that the bytes leave out. `bound` is the sum of their size
   * bounds.
   */
  encode(records: readonly NewRecord[], from: number, to: number, bound: number): Buffer {
    const needed = BATCH_HEADER + bound
    const fits = this.#used + needed <= this.#buffer.length
    const buffer = fits ? this.#buffer.subarray(this.#used) : Buffer.allocUnsafeSlow(needed)
    const size = encodeBatch(buffer, records, from, to)
    if (fits) this.#used += size
    else this.#overflowed = true
    return buffer.subarray(0, size)
  }
}

function encodeBatch(buffer: Buffer, records: readonly NewRecord[], from: number, to: number): number {
  let at = BATCH_HEADER
  let newest = Number.NEGATIVE_INFINITY
  for (let i = from; i < to; i++) {
    const record = records[i] as NewRecord
    if (record.timestamp > newest) newest = record.timestamp
    at = writeRecord(buffer, at, record, i - from)
  }
  writeBatchHeader(buffer, to - from, to - from, newest)
  return at
}

function writeBatchHeader(buffer: Buffer, count: number, span: number, newest: number): void {
  buffer[0] = VERSION
  buffer.writeUInt32LE(count, COUNT_AT)
  buffer.writeUInt32LE(span, SPAN_AT)
  buffer.writeDoubleLE(newest, TIMESTAMP_AT)
}

function writeRecord(buffer: Buffer, start: number, record: NewRecord, delta: number): number {
  const { key, value, headers } = record
  let flags = 0
  let at = start + RECORD_HEADER
  if (key !== null) {
    flags |= HAS_KEY
    at = writeText(buffer, at, key)
  }
  buffer.writeUInt16LE(at - start - RECORD_HEADER, start + 17)
  if (headers !== undefined) {
    flags |= HAS_HEADERS
    at = writeHeaders(buffer, at, headers)
  }
  if (value !== null) {
    flags |= HAS_VALUE
    buffer.set(value, at)
    at += value.byteLength
  }
  buffer.writeUInt32LE(at - start - 4, start)
  buffer.writeUInt32LE(delta, start + 4)
  buffer.writeDoubleLE(record.timestamp, start + 8)
  buffer[start + 16] = flags
  return at
}

function writeHeaders(buffer: Buffer, start: number, headers: Headers): number {
  let at = start + 1
  let count = 0
  for (const name in headers) {
    count++
    const nameEnd = writeText(buffer, at + 2, name)
    buffer.writeUInt16LE(nameEnd - at - 2, at)
    const end = writeText(buffer, nameEnd + 4, headers[name] as string)
    buffer.writeUInt32LE(end - nameEnd - 4, nameEnd)
    at = end
  }
  buffer[start] = count
  return at
}

/** Writes UTF-8. Ids are short and ASCII, where a loop is faster than a native call. */
function writeText(buffer: Buffer, start: number, text: string): number {
  const length = text.length
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    if (code > 0x7f) return start + buffer.write(text, start, 'utf8')
    buffer[start + i] = code
  }
  return start + length
}

/** Walks the records of an encoded batch without copying. Its fields tell the current record. */
export class BatchReader {
  readonly bytes: Buffer
  readonly base: Offset
  readonly count: number
  /** Exclusive end of the offsets that the batch covers, whether or not its last record is still kept. */
  readonly end: Offset
  readonly newest: number
  /** Start and end of the current record in `bytes`, and its offset. */
  start = BATCH_HEADER
  stop = BATCH_HEADER
  offset = -1
  #read = 0

  constructor(bytes: Buffer, base: Offset) {
    this.bytes = bytes
    this.base = base
    if (bytes.length < BATCH_HEADER) this.#corrupted('it is cut short')
    if (bytes[0] !== VERSION) this.#corrupted(`its format is version ${bytes[0]}, not ${VERSION}`)
    this.count = bytes.readUInt32LE(COUNT_AT)
    this.end = base + bytes.readUInt32LE(SPAN_AT)
    this.newest = bytes.readDoubleLE(TIMESTAMP_AT)
  }

  /** Goes to the next record; false after the last. Throws LogCorruptedError when the lengths do not add up. */
  next(): boolean {
    const { bytes, stop } = this
    if (this.#read === this.count) {
      if (stop !== bytes.length) this.#corrupted('bytes follow its last record')
      return false
    }
    if (stop + RECORD_HEADER > bytes.length) this.#corrupted('it ends within a record')
    this.start = stop
    this.stop = stop + 4 + bytes.readUInt32LE(stop)
    if (this.stop > bytes.length || this.stop < stop + RECORD_HEADER) this.#corrupted('a record is longer than it')
    this.offset = this.base + bytes.readUInt32LE(stop + 4)
    this.#read++
    return true
  }

  get timestamp(): number {
    return this.bytes.readDoubleLE(this.start + 8)
  }

  get tombstone(): boolean {
    return ((this.bytes[this.start + 16] as number) & HAS_VALUE) === 0
  }

  /** Epoch milliseconds from which compaction may drop this tombstone. Undefined before its first compaction. */
  get deleteAt(): number | undefined {
    const flags = this.bytes[this.start + 16] as number
    return (flags & HAS_DELETE_AT) === 0 ? undefined : this.bytes.readDoubleLE(this.start + RECORD_HEADER)
  }

  get key(): string | null {
    const flags = this.bytes[this.start + 16] as number
    if ((flags & HAS_KEY) === 0) return null
    const at = this.start + RECORD_HEADER + ((flags & HAS_DELETE_AT) === 0 ? 0 : 8)
    return this.bytes.toString('utf8', at, at + this.bytes.readUInt16LE(this.start + 17))
  }

  /** The value is a view of the batch. */
  record(): LogRecord {
    const { bytes, start } = this
    const flags = bytes[start + 16] as number
    let at = start + RECORD_HEADER + ((flags & HAS_DELETE_AT) === 0 ? 0 : 8)
    const keyEnd = at + bytes.readUInt16LE(start + 17)
    const key = (flags & HAS_KEY) === 0 ? null : bytes.toString('utf8', at, keyEnd)
    at = keyEnd
    let headers: Record<string, string> | undefined
    if ((flags & HAS_HEADERS) !== 0) {
      headers = {}
      let left = bytes[at++] as number
      while (left-- > 0) {
        const nameEnd = at + 2 + bytes.readUInt16LE(at)
        const end = nameEnd + 4 + bytes.readUInt32LE(nameEnd)
        headers[bytes.toString('utf8', at + 2, nameEnd)] = bytes.toString('utf8', nameEnd + 4, end)
        at = end
      }
    }
    if (at > this.stop) this.#corrupted('a key or header is longer than its record')
    const value = (flags & HAS_VALUE) === 0 ? null : bytes.subarray(at, this.stop)
    return { offset: this.offset, key, value, timestamp: this.timestamp, headers }
  }

  #corrupted(why: string): never {
    throw new LogCorruptedError(`the log's batch at offset ${this.base} cannot be read: ${why}`)
  }
}

/** Builds a batch out of records of other batches for compaction. */
export class BatchBuilder {
  readonly base: Offset
  #buffer: Buffer
  #at = BATCH_HEADER
  #newest = Number.NEGATIVE_INFINITY
  #end: Offset
  count = 0

  constructor(base: Offset, capacity: number) {
    this.base = base
    this.#end = base
    this.#buffer = Buffer.allocUnsafeSlow(BATCH_HEADER + capacity)
  }

  get size(): number {
    return this.#at
  }

  /** False when the span up to `end` does not fit its field. */
  reaches(end: Offset): boolean {
    return end - this.base <= MAX_SPAN
  }

  /** Takes the reader's current record. `deleteAt` is noted on a tombstone that has no such time. */
  add(reader: BatchReader, deleteAt?: number): void {
    const { bytes, start, stop } = reader
    const marked = deleteAt !== undefined
    this.#reserve(stop - start + 8)
    const at = this.#at
    const buffer = this.#buffer
    if (marked) {
      bytes.copy(buffer, at, start, start + RECORD_HEADER)
      buffer[at + 16] = (buffer[at + 16] as number) | HAS_DELETE_AT
      buffer.writeDoubleLE(deleteAt, at + RECORD_HEADER)
      bytes.copy(buffer, at + RECORD_HEADER + 8, start + RECORD_HEADER, stop)
    } else {
      bytes.copy(buffer, at, start, stop)
    }
    const size = stop - start + (marked ? 8 : 0)
    buffer.writeUInt32LE(size - 4, at)
    buffer.writeUInt32LE(reader.offset - this.base, at + 4)
    this.#at = at + size
    this.count++
    if (reader.timestamp > this.#newest) this.#newest = reader.timestamp
  }

  /** Makes the batch cover all offsets before `end`. */
  cover(end: Offset): void {
    this.#end = end
  }

  finish(): Buffer {
    writeBatchHeader(this.#buffer, this.count, this.#end - this.base, this.#newest)
    return this.#buffer.subarray(0, this.#at)
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.length) return
    const grown = Buffer.allocUnsafeSlow(Math.max(this.#buffer.length * 2, this.#at + bytes))
    this.#buffer.copy(grown, 0, 0, this.#at)
    this.#buffer = grown
  }
}
