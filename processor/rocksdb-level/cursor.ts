import { bytes as checkBytes, type NativeDb, type NativeEntry, type NativeIterator } from './native.ts'

/** A longer value stays where it is: copying it costs more than keeping it. */
const MAX_COPIED_BYTES = 4096
/** Copies share segments of this many bytes at most; a copy that is kept holds its whole segment. */
const SEGMENT_BYTES = 64 * 1024
const NOTHING = Buffer.alloc(0)

/**
 * Gives the memory of an ArrayBuffer back; the buffer is empty afterwards. Node 20 has no transfer() and leaves this to
 * the collector.
 */
export const free: ((buffer: ArrayBuffer) => void) | undefined =
  'transfer' in ArrayBuffer.prototype ? (buffer) => void buffer.transfer(0) : undefined

/** Only small values are copied, and may share their memory afterwards. */
export function isSmall({ byteLength }: Buffer): boolean {
  return byteLength <= MAX_COPIED_BYTES
}

/**
 * Copies small keys and values of the binding into memory that they share, and gives theirs back. Each has an
 * ArrayBuffer of its own, whose finalizer runs on the event loop once the collector has found it. A minor collection
 * finds twenty thousand and more, whose finalizers hold the event loop up for 10 ms.
 */
export class Copies {
  #segment = NOTHING
  #at = 0
  #left = 0

  /**
   * Must be called with everything that will be taken, before the first take(): no segment is larger than the bytes
   * still to come.
   */
  expect(bytes: Buffer): void {
    if (isSmall(bytes)) this.#left += bytes.byteLength
  }

  /** Returns `bytes` itself when it is not copied; otherwise `bytes` is empty afterwards. */
  take(bytes: Buffer): Buffer {
    const { byteLength } = bytes
    if (free === undefined || !isSmall(bytes) || !(bytes.buffer instanceof ArrayBuffer)) return bytes
    if (this.#at + byteLength > this.#segment.byteLength) {
      this.#segment = Buffer.allocUnsafeSlow(Math.min(this.#left, SEGMENT_BYTES))
      this.#at = 0
    }
    const start = this.#at
    this.#at += byteLength
    this.#left -= byteLength
    this.#segment.set(bytes, start)
    free(bytes.buffer)
    return this.#segment.subarray(start, this.#at)
  }
}

/** Beyond this the native iterator gains nothing, while its read-ahead holds ever more memory. */
const MAX_CAPACITY = 4096

/**
 * Reads a range of a snapshot in chunks. rocksdb-native's iterator can neither seek nor change how much it reads at a
 * time, so the cursor replaces it: it knows where it stands, and the snapshot makes the replacement invisible.
 */
export class Cursor {
  readonly #db: NativeDb
  readonly #reverse: boolean
  readonly #values: boolean
  readonly #range: Range
  #rest: Range
  #ended: boolean
  #reader: Reader | null = null
  #capacity = 0
  readonly #closing = new Set<Promise<void>>()

  constructor(snapshot: NativeDb, range: Range, reverse: boolean, values: boolean) {
    this.#db = snapshot
    this.#range = range
    this.#rest = range
    this.#reverse = reverse
    this.#values = values
    this.#ended = isEmpty(range)
  }

  /**
   * Reads up to `size` entries; fewer only at the end. The caller will never ask for more than `limit`, so no more is
   * read.
   */
  async read(size: number, limit: number): Promise<NativeEntry[]> {
    const entries: NativeEntry[] = []

    while (!this.#ended && entries.length < size) {
      const reader = this.#ensure(size - entries.length, limit - entries.length)
      await reader.readInto(entries, size)

      const last = entries.at(-1)
      if (last !== undefined) this.#rest = this.#after(last.key)
      if (reader.ended || isEmpty(this.#rest)) this.#ended = true
    }

    return entries
  }

  /** A target outside the range ends the iteration, as abstract-level demands. */
  seek(target: Buffer): void {
    this.#drop()
    this.#ended = !includes(this.#range, target)
    this.#rest = this.#reverse
      ? { start: this.#range.start, end: successor(target) }
      : { start: target, end: this.#range.end }
  }

  async close(): Promise<void> {
    this.#ended = true
    this.#drop()
    await Promise.all(this.#closing)
  }

  #ensure(wanted: number, limit: number): Reader {
    const capacity = Math.min(wanted, MAX_CAPACITY)
    // An iterator that is only a little too small is kept: opening another one costs a seek.
    if (this.#reader !== null && capacity > this.#capacity * 2) this.#drop()
    if (this.#reader === null) {
      this.#capacity = capacity
      this.#reader = new Reader(
        this.#db.iterator({
          gte: this.#rest.start,
          gt: NONE,
          lte: NONE,
          lt: this.#rest.end ?? NONE,
          reverse: this.#reverse,
          values: this.#values,
          limit,
          capacity,
        }),
      )
    }
    return this.#reader
  }

  #after(key: Buffer): Range {
    return this.#reverse ? { start: this.#rest.start, end: key } : { start: successor(key), end: this.#rest.end }
  }

  #drop(): void {
    if (this.#reader === null) return
    const closing = this.#reader.close()
    this.#reader = null
    this.#closing.add(closing)
    // A failed one stays, and close() rejects with its error.
    closing.then(
      () => this.#closing.delete(closing),
      () => undefined,
    )
  }
}

function copy(entries: readonly NativeEntry[]): void {
  const copies = new Copies()
  for (const { key, value } of entries) {
    copies.expect(key)
    if (value !== null) copies.expect(value)
  }
  for (const entry of entries) {
    entry.key = copies.take(entry.key)
    if (entry.value !== null) entry.value = copies.take(entry.value)
  }
}

/** Turns a native iterator, which pushes, into one that is pulled from. */
class Reader {
  readonly #iterator: NativeIterator
  /** The call under way, or the last one. */
  #last: Promise<void>
  /** The read under way; later what it returned. */
  #next: NativeEntry[] | undefined
  #chunk: NativeEntry[] = []
  #taken = 0
  #reads = 0
  #complete = false

  constructor(iterator: NativeIterator) {
    this.#iterator = iterator
    iterator.push = (entry) => {
      if (entry === null) this.#complete = true
      else this.#next?.push(entry)
      return true
    }
    this.#last = called((callback) => iterator._open(callback))
  }

  get ended(): boolean {
    return this.#complete && this.#next === undefined && this.#taken === this.#chunk.length
  }

  async readInto(entries: NativeEntry[], size: number): Promise<void> {
    while (entries.length < size) {
      if (this.#taken < this.#chunk.length) {
        entries.push(this.#chunk[this.#taken++] as NativeEntry)
        continue
      }
      if (this.ended) return
      if (this.#next === undefined) {
        await this.#last
        this.#begin()
      }
      await this.#last
      this.#chunk = this.#next as NativeEntry[]
      this.#next = undefined
      this.#taken = 0
    }
    // A caller that came twice will come again, so RocksDB reads on while the caller works.
    if (this.#reads > 1 && this.#taken === this.#chunk.length && !this.#complete) this.#begin()
  }

  #begin(): void {
    this.#reads++
    const next: NativeEntry[] = (this.#next = [])
    this.#last = called((callback) =>
      this.#iterator._read((error) => {
        copy(next)
        callback(error)
      }),
    )
  }

  async close(): Promise<void> {
    // The failure went to the caller of that read, and nobody asks for what was read ahead.
    await this.#last.catch(() => undefined)
    await called((callback) => this.#iterator._destroy(callback))
  }
}

/** The failure goes to whoever awaits the call, if anybody does. */
function called(call: (callback: (error?: Error | null) => void) => void): Promise<void> {
  const result = new Promise<void>((resolve, reject) => call((error) => (error ? reject(error) : resolve())))
  result.catch(() => undefined)
  return result
}

/**
 * The keys from `start` on and before `end`, in RocksDB's bytewise order. Without an end the range goes to the last
 * key.
 */
export interface Range {
  readonly start: Buffer
  readonly end: Buffer | undefined
}

export interface RangeBounds {
  gt?: Buffer | undefined
  gte?: Buffer | undefined
  lt?: Buffer | undefined
  lte?: Buffer | undefined
}

const NONE = Buffer.alloc(0)

const ZERO = Buffer.alloc(1)

/**
 * Turns abstract-level's four bounds into one range. The inclusive bound wins over the exclusive one, as abstract-level
 * demands.
 */
export function toRange(bounds: RangeBounds): Range {
  const start = bounds.gte ?? (bounds.gt === undefined ? NONE : successor(bounds.gt))
  const end = bounds.lte === undefined ? bounds.lt : successor(bounds.lte)
  checkBytes(start)
  if (end !== undefined) checkBytes(end)
  return { start, end }
}

export function successor(key: Buffer): Buffer {
  return Buffer.concat([key, ZERO], key.length + 1)
}

export function isEmpty(range: Range): boolean {
  return range.end !== undefined && Buffer.compare(range.start, range.end) >= 0
}

function includes(range: Range, key: Buffer): boolean {
  return Buffer.compare(range.start, key) <= 0 && (range.end === undefined || Buffer.compare(key, range.end) < 0)
}
