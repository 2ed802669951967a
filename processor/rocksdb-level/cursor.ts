import { Copies } from './copies.ts'
import type { NativeDb, NativeEntry, NativeIterator } from './native.ts'
import { includes, isEmpty, type Range, successor } from './range.ts'

const NONE = Buffer.alloc(0)

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
  /** What is still to be read. */
  #rest: Range
  #ended: boolean
  #stream: Stream | null = null
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

  /** Up to `size` entries; fewer only at the end. `limit` is all that will ever be asked for, so nothing more is read. */
  async read(size: number, limit: number): Promise<NativeEntry[]> {
    const entries: NativeEntry[] = []

    while (!this.#ended && entries.length < size) {
      const stream = this.#ensure(size - entries.length, limit - entries.length)
      const before = entries.length
      await stream.readInto(entries, size)
      copy(entries, before)

      const last = entries.at(-1)
      if (last !== undefined) this.#rest = this.#after(last.key)
      if (stream.ended || isEmpty(this.#rest)) this.#ended = true
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

  #ensure(wanted: number, limit: number): Stream {
    const capacity = Math.min(wanted, MAX_CAPACITY)
    // A somewhat small iterator is kept: opening another one costs a seek.
    if (this.#stream !== null && capacity > this.#capacity * 2) this.#drop()
    if (this.#stream === null) {
      this.#capacity = capacity
      this.#stream = new Stream(
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
    return this.#stream
  }

  #after(key: Buffer): Range {
    return this.#reverse ? { start: this.#rest.start, end: key } : { start: successor(key), end: this.#rest.end }
  }

  #drop(): void {
    if (this.#stream === null) return
    const closing = this.#stream.close()
    this.#stream = null
    this.#closing.add(closing)
    void closing.then(() => this.#closing.delete(closing))
  }
}

/** Replaces the keys and values of the entries from the place `from` on. */
function copy(entries: readonly NativeEntry[], from: number): void {
  const copies = new Copies()
  for (let i = from; i < entries.length; i++) {
    const { key, value } = entries[i] as NativeEntry
    copies.expect(key)
    if (value !== null) copies.expect(value)
  }
  for (let i = from; i < entries.length; i++) {
    const entry = entries[i] as NativeEntry
    entry.key = copies.take(entry.key)
    if (entry.value !== null) entry.value = copies.take(entry.value)
  }
}

/** What streamx takes for a destroy() without an error: left to itself it makes one each time, with a stack trace. */
const DESTROYED = Object.assign(new Error('Stream was destroyed'), { code: 'STREAM_DESTROYED' })

/** A native iterator (a streamx Readable) that is pulled from. */
class Stream {
  readonly #iterator: NativeIterator
  readonly #closed: Promise<void>
  #error: Error | null = null
  #wake: (() => void) | null = null
  ended = false

  constructor(iterator: NativeIterator) {
    this.#iterator = iterator
    const wake = () => {
      const waiting = this.#wake
      this.#wake = null
      waiting?.()
    }
    this.#closed = new Promise((resolve) => {
      iterator.on('close', () => {
        this.ended = true
        wake()
        resolve()
      })
    })
    iterator.on('readable', wake)
    iterator.on('end', () => {
      this.ended = true
      wake()
    })
    iterator.on('error', (error) => {
      this.#error = error
      wake()
    })
  }

  async readInto(entries: NativeEntry[], size: number): Promise<void> {
    while (entries.length < size) {
      const entry = this.#iterator.read()
      if (entry !== null) {
        entries.push(entry)
        continue
      }
      if (this.#error !== null) throw this.#error
      if (this.ended) return
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  close(): Promise<void> {
    this.#iterator.destroy(DESTROYED)
    return this.#closed
  }
}
