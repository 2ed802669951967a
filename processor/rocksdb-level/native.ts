import RocksDB from 'rocksdb-native'

/** This package relies on this part of rocksdb-native. Keys and values are always bytes here. */
export interface NativeDb {
  ready(): Promise<void>
  flush(): Promise<void>
  close(): Promise<void>
  /** Opens a second handle on the same database; with `snapshot` it keeps reading the state of this moment. */
  session(options: { snapshot: boolean }): NativeDb
  get(key: Uint8Array): Promise<Buffer | null>
  put(key: Uint8Array, value: Uint8Array): Promise<void>
  delete(key: Uint8Array): Promise<void>
  deleteRange(start: Uint8Array, end: Uint8Array): Promise<void>
  read(options: { capacity: number; autoDestroy: boolean }): NativeReadBatch
  write(options: { capacity: number; autoDestroy: boolean }): NativeWriteBatch
  iterator(range: NativeRange): NativeIterator
  flush(): Promise<void>
  readonly _state: {
    // The public compactRange() takes any object for its options, so it cannot be given a Buffer as a bound.
    compactRange(db: NativeDb, start: Uint8Array | null, end: Uint8Array | null, options: object): Promise<void>
  }
}

interface NativeReadBatch {
  get(key: Uint8Array): Promise<Buffer | null>
  tryFlush(): void
}

interface NativeWriteBatch {
  tryPut(key: Uint8Array, value: Uint8Array): void
  tryDelete(key: Uint8Array): void
  flush(): Promise<void>
  destroy(): void
}

/** An empty bound is no bound. */
interface NativeRange {
  gte: Uint8Array
  gt: Uint8Array
  lte: Uint8Array
  lt: Uint8Array
  reverse: boolean
  values: boolean
  limit: number
  capacity: number
}

export interface NativeEntry {
  key: Buffer
  value: Buffer | null
}

/**
 * A streamx Readable. The cursor calls its underscored methods, as streamx would, one call at a time, and gives it a
 * `push`: a stream's buffer and events would take longer than the reading.
 */
export interface NativeIterator {
  push: (entry: NativeEntry | null) => boolean
  _open(callback: NativeCallback): void
  /** Pushes up to `capacity` entries, and null after the last; then it calls back. */
  _read(callback: NativeCallback): void
  _destroy(callback: NativeCallback): void
}

type NativeCallback = (error?: Error | null) => void

export interface NativeOptions {
  readOnly: boolean
  createIfMissing: boolean
  maxBackgroundJobs: number
  bytesPerSync: number
  maxOpenFiles: number
  maxFileOpeningThreads: number
  tableBlockSize: number
  tableCacheIndexAndFilterBlocks: boolean
  optimizeFiltersForMemory: boolean
  blockCache: boolean
  filterPolicy: object | null
  maxWriteBufferNumber: number
  writeBufferSize: number
}

interface NativeConstructor {
  new (path: string, options: NativeOptions): NativeDb
  readonly BloomFilterPolicy: new (bitsPerKey: number) => object
}

export const Native = RocksDB as NativeConstructor

/** The binding takes any value for bytes and reads memory beyond it, so the results of custom encodings are checked. */
export function bytes(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value
  throw new TypeError(`An encoding must encode to a Buffer, received ${value === null ? 'null' : typeof value}`)
}
