import { resolve } from 'node:path'
import { AbstractChainedBatch, AbstractLevel, AbstractSnapshot } from 'abstract-level'
import { Copies, free, isEmpty, isSmall, type RangeBounds, successor, toRange } from './cursor.ts'
import { failureOf, RocksLevelError, toLevelError } from './errors.ts'
import {
  describeHiddenHolder,
  describeHolder,
  holdsDatabase,
  identityOf,
  makeFolder,
  manifestOf,
  refuseRemains,
  writeOwner,
} from './folder.ts'
import { RocksIterator, type RocksIteratorOptions } from './iterator.ts'
import { bytes, Native, type NativeDb, type NativeOptions } from './native.ts'
import {
  boundInfoLog,
  lowerCompactionThreads,
  type RocksLevelOptions,
  type RocksOpenOptions,
  toNativeOptions,
} from './options.ts'

export interface Operation {
  readonly key: Uint8Array
  /** Null deletes the key. */
  readonly value: Uint8Array | null
}

/** The write is atomic. */
export function write(db: NativeDb, operations: readonly Operation[]): Promise<void> {
  // With every batch of more than 16 operations the binding reserves room for `capacity` of them, 48 bytes each. Unused
  // room is garbage outside the heap and makes V8 collect the whole heap sooner.
  const batch = db.write({ capacity: operations.length, autoDestroy: true })
  for (const { key, value } of operations) {
    if (value === null) batch.tryDelete(key)
    else batch.tryPut(key, value)
  }
  return batch.flush()
}

export class RocksChainedBatch<K, V> extends AbstractChainedBatch<RocksLevel<K, V>, K, V> {
  readonly #native: NativeDb
  #operations: Operation[] = []

  constructor(db: RocksLevel<K, V>, native: NativeDb) {
    super(db)
    this.#native = native
  }

  _put(key: Buffer, value: Buffer): void {
    this.#operations.push({ key: bytes(key), value: bytes(value) })
  }

  _del(key: Buffer): void {
    this.#operations.push({ key: bytes(key), value: null })
  }

  _clear(): void {
    this.#operations = []
  }

  async _write(): Promise<void> {
    try {
      await write(this.#native, this.#operations)
    } catch (error) {
      throw failureOf(this.db, error)
    }
  }
}

/** A writer changes its manifest a few times a second at most, and opening takes milliseconds. */
const ATTEMPTS = 20

/**
 * Opens a database beside its writer. RocksDB reads the manifest first and the logs after it, and accepts a missing
 * log. It would miss records that the writer flushes between the two, so the manifest must be the same before and
 * after.
 */
export async function openReadOnly(path: string, options: NativeOptions): Promise<NativeDb> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const before = await manifest(path)
    const db = new Native(path, options)
    const failure = await db.ready().then(
      () => undefined,
      (error: unknown) => toLevelError(error, path),
    )
    const after = await manifest(path).catch(async (error: unknown) => {
      if (failure === undefined) await db.close()
      throw error
    })
    if (after === before && before !== undefined) {
      if (failure !== undefined) throw failure
      return db
    }
    if (failure === undefined) await db.close()
  }
  throw new RocksLevelError(
    'LEVEL_IO_ERROR',
    `The database ${path} changed each of ${ATTEMPTS} times it was opened to read`,
  )
}

/** Returns undefined while a new manifest replaces the old one. */
function manifest(path: string): Promise<string | undefined> {
  return manifestOf(path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw toLevelError(error, path)
  })
}

export class RocksSnapshot extends AbstractSnapshot {
  /** The database that it belongs to; it can read no other. */
  readonly native: NativeDb
  /** The session reads the state of the moment at which it was made. */
  readonly session: NativeDb

  constructor(native: NativeDb, options: { owner: unknown }) {
    // AbstractSnapshot's constructor is not part of its published types.
    super(...([options] as unknown as []))
    this.native = native
    this.session = native.session({ snapshot: true })
  }

  async _close(): Promise<void> {
    await this.session.close()
  }
}

export { type RocksErrorCode, RocksLevelError } from './errors.ts'
export type { RocksLevelOptions, RocksOpenOptions, RocksOptions } from './options.ts'

interface ReadOptions {
  snapshot?: AbstractSnapshot | undefined
}

type PrivateOperation = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer }

type ClearOptions = RangeBounds & ReadOptions & { limit: number; reverse: boolean }

/** A clear() that cannot be one range delete writes this many deletes at a time. */
const CLEAR_CHUNK = 1000

/** An abstract-level database that RocksDB keeps in a folder. */
export class RocksLevel<KDefault = string, VDefault = string> extends AbstractLevel<Buffer, KDefault, VDefault> {
  readonly location: string
  #native: NativeDb | null = null
  #readOnly = false
  #identity: string | undefined
  #endInfoLog: () => void = () => {}

  constructor(location: string, options?: RocksLevelOptions<KDefault, VDefault>) {
    if (typeof location !== 'string' || location === '') {
      throw new TypeError("The first argument 'location' must be a non-empty string")
    }
    super(
      {
        encodings: { buffer: true },
        seek: true,
        createIfMissing: true,
        errorIfExists: true,
        explicitSnapshots: true,
        additionalMethods: { flush: true, compactRange: true },
      },
      options,
    )
    this.location = resolve(location)
  }

  async _open(options: RocksOpenOptions): Promise<void> {
    const path = this.location
    const native = toNativeOptions(options)
    if (Buffer.byteLength(path) > 4000) throw new RocksLevelError('LEVEL_IO_ERROR', `The path is too long: ${path}`)

    const exists = await holdsDatabase(path)
    if (exists && options.errorIfExists === true) {
      throw new RocksLevelError('LEVEL_ALREADY_EXISTS', `The database ${path} exists (errorIfExists is true)`)
    }
    if (!exists && (native.readOnly || !native.createIfMissing)) {
      const why = native.readOnly ? 'readOnly is true' : 'createIfMissing is false'
      throw new RocksLevelError('LEVEL_NOT_FOUND', `The database ${path} does not exist (${why})`)
    }
    this.#readOnly = native.readOnly
    if (native.readOnly) {
      this.#native = await openReadOnly(path, native)
      return
    }
    if (!exists) {
      await makeFolder(path)
      await refuseRemains(path)
    }

    const hidden = exists ? await describeHiddenHolder(path) : undefined
    if (hidden !== undefined) {
      const what = `The database ${path} is held by ${hidden}, though its LOCK file was removed`
      throw new RocksLevelError('LEVEL_LOCKED', what)
    }

    const db = new Native(path, native)
    try {
      await db.ready()
    } catch (error) {
      const failure = toLevelError(error, path)
      if (failure.code !== 'LEVEL_LOCKED') throw failure
      const holder = await describeHolder(path)
      throw new RocksLevelError('LEVEL_LOCKED', `The database ${path} is held by ${holder}`, failure.cause)
    }
    this.#native = db
    this.#identity = await identityOf(path).catch(() => undefined)
    this.#endInfoLog = boundInfoLog(path)
    await lowerCompactionThreads()
    await writeOwner(path)
  }

  async _close(): Promise<void> {
    const native = this.#native
    this.#native = null
    if (this.#readOnly) return native?.close()
    this.#endInfoLog()
    // The next open reads the write-ahead log; after a flush there is none to read, and it takes milliseconds. On a
    // full disk the data stays in the log. A table file would go to whatever folder is at the path now.
    if (await this.isInPlace()) await native?.flush().catch(() => undefined)
    await native?.close()
  }

  async _get(key: Buffer, options: ReadOptions): Promise<Buffer | undefined> {
    const reader = this.#reader(options)
    return (await this.#run(() => reader.get(bytes(key)))) ?? undefined
  }

  async _getMany(keys: Buffer[], options: ReadOptions): Promise<(Buffer | undefined)[]> {
    for (const key of keys) bytes(key)
    const reader = this.#reader(options)
    const values = await this.#run(() => {
      const batch = reader.read({ capacity: keys.length, autoDestroy: true })
      const reads = keys.map((key) => batch.get(key))
      batch.tryFlush()
      return Promise.all(reads)
    })
    const copies = new Copies()
    for (const value of values) if (value !== null) copies.expect(value)
    return values.map((value) => (value === null ? undefined : copies.take(value)))
  }

  async _put(key: Buffer, value: Buffer): Promise<void> {
    await this.#run((db) => db.put(bytes(key), bytes(value)))
  }

  async _del(key: Buffer): Promise<void> {
    await this.#run((db) => db.delete(bytes(key)))
  }

  async _batch(operations: PrivateOperation[]): Promise<void> {
    const checked = operations.map((op) => ({ key: bytes(op.key), value: op.type === 'put' ? bytes(op.value) : null }))
    await this.#run((db) => write(db, checked))
  }

  _chainedBatch(): RocksChainedBatch<KDefault, VDefault> {
    return new RocksChainedBatch<KDefault, VDefault>(this, this.#db())
  }

  _iterator<K, V>(options: RocksIteratorOptions<K, V>): RocksIterator<KDefault, VDefault, K, V> {
    const explicit = options.snapshot == null ? null : this.#reader(options)
    return new RocksIterator<KDefault, VDefault, K, V>(this, options, this.#db(), explicit)
  }

  _snapshot(options: { owner: unknown }): RocksSnapshot {
    return new RocksSnapshot(this.#db(), options)
  }

  async _clear(options: ClearOptions): Promise<void> {
    if (options.limit !== -1 || options.snapshot != null) return this.#clearOneByOne(options)

    const range = toRange(options)
    if (isEmpty(range)) return

    let end = range.end
    if (end === undefined) {
      // RocksDB deletes up to a key, and the successor of the last key is the only one known to be greater than all
      // others.
      const [last] = await this.keys<Buffer>({ gte: range.start, reverse: true, limit: 1, keyEncoding: 'buffer' }).all()
      if (last === undefined) return
      end = successor(last)
    }
    const { start } = range
    const stop = end
    await this.#run((db) => db.deleteRange(start, stop))
  }

  /**
   * False when the opened folder is gone from its path, or another database is there. Open files still take writes
   * then, but nobody can open those again.
   */
  async isInPlace(): Promise<boolean> {
    const known = this.#identity
    if (known === undefined) return true
    return identityOf(this.location).then(
      (found) => found === known,
      () => true,
    )
  }

  /** Writes the memtable to a table file. Without a flush data is as durable as the write-ahead log. */
  async flush(): Promise<void> {
    if (this.status === 'opening') return this.deferAsync(() => this.flush())
    await this.#run((db) => db.flush())
  }

  /** Compacts the keys from `start` to `end`, or all without them. */
  async compactRange(start?: KDefault, end?: KDefault): Promise<void> {
    if (this.status === 'opening') return this.deferAsync(() => this.compactRange(start, end))
    const from = this.#bound(start) ?? null
    const to = this.#bound(end) ?? null
    await this.#run((db) => db._state.compactRange(db, from, to, {}))
  }

  /**
   * Frees the memory of a value that was read or written, before the collector finds it. The value, and everything that
   * shares its memory, is empty afterwards. Many large values make V8 collect its whole heap again and again.
   */
  release(value: Buffer): void {
    if (!isSmall(value) && value.buffer instanceof ArrayBuffer) free?.(value.buffer)
  }

  async #clearOneByOne(options: ClearOptions): Promise<void> {
    const range = toRange(options)
    if (isEmpty(range)) return
    const keys = this.keys<Buffer>({
      gte: range.start,
      ...(range.end === undefined ? undefined : { lt: range.end }),
      reverse: options.reverse,
      limit: options.limit,
      snapshot: options.snapshot,
      keyEncoding: 'buffer',
    })
    try {
      let chunk = await keys.nextv(CLEAR_CHUNK)
      while (chunk.length > 0) {
        await this._batch(chunk.map((key) => ({ type: 'del', key })))
        chunk = await keys.nextv(CLEAR_CHUNK)
      }
    } finally {
      await keys.close()
    }
  }

  async #run<T>(operation: (db: NativeDb) => Promise<T>): Promise<T> {
    const db = this.#db()
    try {
      return await operation(db)
    } catch (error) {
      throw failureOf(this, error)
    }
  }

  #reader(options: ReadOptions): NativeDb {
    const db = this.#db()
    const snapshot = options.snapshot
    if (snapshot == null) return db
    if (snapshot instanceof RocksSnapshot && snapshot.native === db) return snapshot.session
    throw new TypeError('The snapshot is not one of this database')
  }

  #db(): NativeDb {
    if (this.#native !== null) return this.#native
    throw Object.assign(new Error('Database is not open'), { code: 'LEVEL_DATABASE_NOT_OPEN' })
  }

  #bound(key: KDefault | undefined): Buffer | undefined {
    return key === undefined ? undefined : this.keyEncoding().encode(key)
  }
}
