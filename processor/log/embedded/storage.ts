import { randomUUID } from 'node:crypto'
import { statfs } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { AbstractLevel, AbstractOpenOptions } from 'abstract-level'
import { RocksLevel } from 'rocksdb-level'
import { ConfigurationError, LogCorruptedError, RetryableError, reasonOf, wayOut } from '../../contract/errors.ts'
import { inMemory } from '../../runtime/resources.ts'
import type { LogIdentity, Offset, Topic } from '../log.ts'

const MIB = 1024 * 1024
/** Format of all entries in this folder. Raise it when any is written differently; the format before stays readable. */
const FORMAT = 1

/**
 * Values are batches of many records, read in sequence, so there is no block cache, no Bloom filter, and blocks are
 * large.
 */
const ROCKSDB = {
  writeBufferSize: inMemory(16 * MIB),
  maxWriteBufferNumber: 4,
  maxOpenFiles: 256,
  blockCache: false,
  cacheIndexAndFilterBlocks: false,
  bloomFilterBitsPerKey: 0,
  blockSize: 64 * 1024,
}

type OpenOptions = AbstractOpenOptions & {
  /** Nothing in the folder changes. */
  readonly readOnly?: boolean
}

/** Any ordered database with atomic batches that survive the process once they are answered. */
export interface Database extends AbstractLevel<Buffer, Buffer, Buffer> {
  open(options?: OpenOptions): Promise<void>
  /** Gives back the disk space of cleared entries in the range. */
  compactRange(start: Buffer, end: Buffer): Promise<void>
  /** Frees the memory of a value that was read or written and is not needed any more. */
  release(value: Buffer): void
  /**
   * True when the writes could be read again from the folder's path. A database without this method never loses its
   * place.
   */
  isInPlace?(): Promise<boolean>
}
export type Operation = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer }

/**
 * `batch` holds records, `segment` the size of a run of batches, `position` a partition's claim, `cleaned` how far
 * compaction came.
 */
type Kind = 'batch' | 'segment' | 'position' | 'cleaned'
const KINDS: Readonly<Record<Kind, number>> = { batch: 0x62, segment: 0x73, position: 0x70, cleaned: 0x63 }
const TOPICS: Readonly<Record<Topic, number>> = { telemetry: 0x74, status: 0x73, 'dead-letters': 0x64 }
const META_KEY = Buffer.from('meta')

const PUT_BACK = 'mount it or put it back, and the log goes on by itself'

/** kind u8 | topic u8 | partition u16 | offset u64, big-endian, so that the order of keys is the order of the log. */
export function storageKey(kind: Kind, topic: Topic, partition: number, offset: Offset = 0): Buffer {
  const key = Buffer.allocUnsafe(12)
  key[0] = KINDS[kind]
  key[1] = TOPICS[topic]
  key.writeUInt16BE(partition, 2)
  key.writeUInt32BE(Math.floor(offset / 0x1_0000_0000), 4)
  key.writeUInt32BE(offset >>> 0, 8)
  return key
}

export function offsetOfKey(key: Buffer): Offset {
  return key.readUInt32BE(4) * 0x1_0000_0000 + key.readUInt32BE(8)
}

export function storageRange(kind: Kind, topic: Topic, partition: number): { gte: Buffer; lt: Buffer } {
  const gte = storageKey(kind, topic, partition)
  return { gte, lt: storageKey(kind, topic, partition, Number.MAX_SAFE_INTEGER) }
}

export function encodeNumbers(...numbers: number[]): Buffer {
  const bytes = Buffer.allocUnsafe(numbers.length * 8)
  for (let i = 0; i < numbers.length; i++) bytes.writeDoubleLE(numbers[i] as number, i * 8)
  return bytes
}

export function decodeNumbers(bytes: Buffer): number[] {
  return Array.from({ length: bytes.length >> 3 }, (_, i) => bytes.readDoubleLE(i * 8))
}

/** The database of the embedded log in its folder. It can be closed and opened again under its readers. */
export class EmbeddedStorage {
  readonly folder: string
  readonly #db: Database
  /** The stored value of META_KEY. */
  #meta: Buffer | undefined
  /** Pending from the start of a reopening until one has succeeded. */
  #reopened: PromiseWithResolvers<void> | undefined
  readonly #ending = new AbortController()
  #generation = 0
  #closed = false

  private constructor(folder: string, db: Database) {
    this.folder = folder
    this.#db = db
  }

  /** Rejects with ConfigurationError STORE_LOCKED, FOLDER_UNAVAILABLE or LOG_CORRUPTED. */
  static async open(folder: string, database: (path: string) => Database = rocksdb): Promise<EmbeddedStorage> {
    const path = resolve(folder)
    const db = database(path)
    try {
      await db.open()
    } catch (error) {
      throw openError(error, path)
    }
    return new EmbeddedStorage(path, db)
  }

  /**
   * Reads the identity stored in the folder; a new folder gets one of its own with `partitions`. Rejects with
   * ConfigurationError LOG_MISMATCH or FOLDER_UNAVAILABLE.
   */
  async identity(partitions: number): Promise<LogIdentity> {
    const stored = await this.use((db) => db.get(META_KEY))
    this.#meta = stored
    if (stored === undefined) {
      const identity = { cluster: randomUUID(), telemetry: randomUUID(), status: randomUUID(), partitions }
      this.#meta = Buffer.from(JSON.stringify({ format: FORMAT, ...identity }))
      try {
        await this.#db.put(META_KEY, this.#meta)
      } catch (error) {
        throw openError(error, this.folder)
      }
      return identity
    }
    const { format, ...identity } = JSON.parse(stored.toString()) as LogIdentity & { format: number }
    if (format !== FORMAT) {
      const why = `the log in ${this.folder} has format ${format}, this program reads format ${FORMAT}`
      throw new ConfigurationError('LOG_MISMATCH', `${why}: run the version that wrote it, or set another DATA_DIR`)
    }
    if (identity.partitions !== partitions) {
      const why = `the log in ${this.folder} was created with ${identity.partitions} partitions, not ${partitions}`
      const out = `set PARTITIONS=${identity.partitions}, or another DATA_DIR for a new log`
      throw new ConfigurationError('LOG_MISMATCH', `${why}, and a key's partition cannot change: ${out}`)
    }
    return identity
  }

  /** Makes one atomic write. When this resolves, the system has it in the write-ahead log, and it survives kill -9. */
  async write(operations: Operation[]): Promise<void> {
    if (this.#reopened !== undefined) throw this.#unavailable('is being opened anew: write when it is there again')
    await this.#db.batch(operations)
  }

  release(value: Buffer): void {
    this.#db.release(value)
  }

  /**
   * Runs `read` on the database, and again from the start if the database was closed or reopened under it. Rejects when
   * `signal` aborts while it waits for the database.
   */
  async use<T>(read: (db: Database) => Promise<T>, signal?: AbortSignal): Promise<T> {
    for (;;) {
      await this.#open(signal)
      if (this.#closed) throw this.#wasClosed()
      const generation = this.#generation
      try {
        return await read(this.#db)
      } catch (error) {
        if (!this.#closed && this.#generation === generation) throw readError(error, this.folder)
      }
    }
  }

  /** Resolves at once unless the database is being reopened, or cannot be. */
  async #open(signal?: AbortSignal): Promise<void> {
    while (this.#reopened !== undefined) {
      const over = signal === undefined ? this.#ending.signal : AbortSignal.any([this.#ending.signal, signal])
      const aborted = Promise.withResolvers<void>()
      const abort = () => aborted.resolve()
      over.addEventListener('abort', abort, { once: true })
      if (!over.aborted) await Promise.race([this.#reopened.promise, aborted.promise])
      over.removeEventListener('abort', abort)
      if (this.#ending.signal.aborted) throw this.#wasClosed()
      if (over.aborted) throw this.#unavailable('is being opened anew, and nobody waits for it any more')
    }
  }

  #wasClosed(): RetryableError {
    return new RetryableError('LOG_CLOSED', `the log in ${this.folder} was closed`)
  }

  /**
   * RocksDB refuses all writes after a failed one until it is opened again. Readers wait until that has succeeded. Only
   * the same database is opened, and only when `complete` finds nothing missing. Otherwise this rejects with
   * RetryableError, or with the database's own error.
   */
  async reopen(complete: (db: Database) => Promise<boolean>): Promise<void> {
    this.#generation++
    this.#reopened ??= Promise.withResolvers()
    await this.#db.close()
    // It is opened read-only first: another log must stay as it is, and the right one may replace it at any moment.
    await this.#openAgain({ readOnly: true })
    const found = (await this.#isMine()) && (await complete(this.#db))
    await this.#db.close()
    if (!found) {
      throw this.#unavailable(`is not there: another log, or an older state of it, has taken its place; ${PUT_BACK}`)
    }
    await this.#openAgain({ createIfMissing: false })
    this.#generation++
    this.#reopened.resolve()
    this.#reopened = undefined
  }

  async #openAgain(options: OpenOptions): Promise<void> {
    try {
      await this.#db.open(options)
    } catch (error) {
      if (errorCode(causeOf(error)) === 'LEVEL_NOT_FOUND') throw this.#unavailable(`is gone; ${PUT_BACK}`, error)
      throw error
    }
  }

  async #isMine(): Promise<boolean> {
    const stored = await this.#db.get(META_KEY)
    return stored !== undefined && this.#meta?.equals(stored) === true
  }

  #unavailable(what: string, cause?: unknown): RetryableError {
    return new RetryableError('LOG_UNAVAILABLE', `the log in ${this.folder} ${what}`, cause)
  }

  /**
   * Rejects with RetryableError when the folder is gone, or another one has taken its place, as `reopen` would find.
   */
  async checkPlace(): Promise<void> {
    if (this.#reopened !== undefined || (await this.#db.isInPlace?.()) !== false) return
    throw this.#unavailable(`is gone, or another one is in its place; ${PUT_BACK}`)
  }

  /** False when the database cannot lose its place. */
  get hasPlace(): boolean {
    return this.#db.isInPlace !== undefined
  }

  async free(): Promise<number> {
    const { bavail, bsize } = await statfs(this.folder)
    return bavail * bsize
  }

  /** Called before close(), so that nobody waits for a database that may never come back. */
  end(): void {
    this.#ending.abort()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.end()
    await this.#db.close()
  }
}

function rocksdb(path: string): Database {
  return new RocksLevel<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer', ...ROCKSDB })
}

export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}

/** abstract-level wraps the error with which an open failed. */
function causeOf(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? error.cause : error
}

function openError(error: unknown, path: string): ConfigurationError {
  const cause = causeOf(error)
  const text = reasonOf(cause)
  const code = errorCode(cause)
  if (code === 'LEVEL_LOCKED') {
    return new ConfigurationError('STORE_LOCKED', `${text}: stop that process, or set another DATA_DIR`, cause)
  }
  if (code === 'LEVEL_CORRUPTION') return unopenable(path, damaged(path, text, cause))
  const out =
    code === 'LEVEL_NO_SPACE'
      ? 'free space on its volume, which a start needs, too'
      : wayOut(code, text, 'make the folder writable, or set another DATA_DIR')
  return new ConfigurationError('FOLDER_UNAVAILABLE', `the log cannot be opened in ${path} (${text}): ${out}`, cause)
}

function readError(error: unknown, path: string): Error {
  if (error instanceof LogCorruptedError) return error
  const text = reasonOf(error)
  if (errorCode(error) === 'LEVEL_CORRUPTION') return damaged(path, text, error)
  return new RetryableError('LOG_UNAVAILABLE', `the log in ${path} cannot be read now: ${text}`, error)
}

function damaged(path: string, text: string, cause: unknown): LogCorruptedError {
  return new LogCorruptedError(`the log in ${path} is damaged (${text}): restore the folder`, cause)
}

/** A person must mend damage that a start finds: there is no copy to read from, and nothing works without the log. */
export function unopenable(path: string, damage: LogCorruptedError): ConfigurationError {
  return new ConfigurationError('LOG_CORRUPTED', `the log in ${path} cannot be opened: ${damage.message}`, damage)
}
