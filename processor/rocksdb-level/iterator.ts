import { AbstractIterator, type AbstractIteratorOptions } from 'abstract-level'
import { Cursor, type RangeBounds, toRange } from './cursor.ts'
import { failureOf } from './errors.ts'
import type { RocksLevel } from './index.ts'
import { type NativeDb, type NativeEntry } from './native.ts'

/** next() reads a few entries ahead at first, for callers that want one entry, and then ever more. */
const FIRST_CHUNK = 8
const CHUNK_GROWTH = 8
const LAST_CHUNK = 512
/** A chunk grows only while the grown one would hold at most this many bytes. */
const CHUNK_BYTES = 1 << 20

/** abstract-level has encoded the bounds in these options. */
export interface RocksIteratorOptions<K, V>
  extends Omit<AbstractIteratorOptions<K, V>, 'gt' | 'gte' | 'lt' | 'lte'>,
    RangeBounds {}

type Entry<K, V> = [key: K, value: V]

export class RocksIterator<KDefault, VDefault, K, V> extends AbstractIterator<RocksLevel<KDefault, VDefault>, K, V> {
  readonly #cursor: Cursor
  /** Null when the user gave the snapshot. */
  readonly #own: NativeDb | null
  readonly #values: boolean
  #chunk: NativeEntry[] = []
  #used = 0
  #size = FIRST_CHUNK

  constructor(
    db: RocksLevel<KDefault, VDefault>,
    options: RocksIteratorOptions<K, V>,
    native: NativeDb,
    explicit: NativeDb | null,
  ) {
    super(db, options as unknown as AbstractIteratorOptions<K, V>)
    this.#values = options.values !== false
    const snapshot = explicit ?? native.session({ snapshot: true })
    this.#own = explicit === null ? snapshot : null
    this.#cursor = new Cursor(snapshot, toRange(options), options.reverse === true, this.#values)
  }

  async _next(): Promise<Entry<Buffer, Buffer | undefined> | undefined> {
    if (this.#used === this.#chunk.length && !(await this.#refill())) return undefined
    const entry = this.#chunk[this.#used++]
    return entry === undefined ? undefined : this.#toEntry(entry)
  }

  async _nextv(size: number): Promise<Entry<Buffer, Buffer | undefined>[]> {
    const entries: Entry<Buffer, Buffer | undefined>[] = []
    while (this.#used < this.#chunk.length && entries.length < size) {
      entries.push(this.#toEntry(this.#chunk[this.#used++] as NativeEntry))
    }
    if (entries.length < size) {
      for (const entry of await this.#read(size - entries.length, entries.length)) entries.push(this.#toEntry(entry))
    }
    return entries
  }

  _seek(target: Buffer): void {
    this.#chunk = []
    this.#used = 0
    this.#size = FIRST_CHUNK
    this.#cursor.seek(target)
  }

  async _close(): Promise<void> {
    this.#chunk = []
    this.#used = 0
    await this.#cursor.close()
    await this.#own?.close()
  }

  async #refill(): Promise<boolean> {
    const size = Math.min(this.#size, this.limit - this.count)
    this.#chunk = await this.#read(size, 0)
    this.#used = 0

    let bytes = 0
    for (const entry of this.#chunk) bytes += entry.key.length + (entry.value?.length ?? 0)
    if (bytes * CHUNK_GROWTH <= CHUNK_BYTES) this.#size = Math.min(this.#size * CHUNK_GROWTH, LAST_CHUNK)

    return this.#chunk.length > 0
  }

  async #read(size: number, taken: number): Promise<NativeEntry[]> {
    try {
      return await this.#cursor.read(size, this.limit - this.count - taken)
    } catch (error) {
      throw failureOf(this.db, error)
    }
  }

  #toEntry(entry: NativeEntry): Entry<Buffer, Buffer | undefined> {
    return [entry.key, this.#values && entry.value !== null ? entry.value : undefined]
  }
}
