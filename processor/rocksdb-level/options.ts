import { readdir, readFile, rm, stat, truncate } from 'node:fs/promises'
import { getPriority, setPriority } from 'node:os'
import { join } from 'node:path'
import type { AbstractDatabaseOptions } from 'abstract-level'
import { Native, type NativeOptions } from './native.ts'

const MIB = 1024 * 1024

/** Settings of RocksDB. Every open database has its own memtables and its own block cache. */
export interface RocksOptions {
  /** Size of one memtable in bytes. Default 16 MiB. RocksDB's own default is 64 MiB. */
  writeBufferSize?: number | undefined
  /** How many memtables may exist, the active one included, before writes wait for a flush. Default 3. */
  maxWriteBufferNumber?: number | undefined
  /** Table files kept open; -1 keeps all. Default 512. */
  maxOpenFiles?: number | undefined
  /** Keep uncompressed blocks in a cache of 32 MiB (the binding gives no other size). Default true. */
  blockCache?: boolean | undefined
  /** Keep index and filter blocks in the block cache, so that it bounds them too. Default true. */
  cacheIndexAndFilterBlocks?: boolean | undefined
  /** Size of a block in bytes: what one uncached read fetches. Default 8192. */
  blockSize?: number | undefined
  /** Bits per key of the Bloom filters, which spare most reads of absent keys; 0 for none. Default 10. */
  bloomFilterBitsPerKey?: number | undefined
  /**
   * Shows the state of the folder at the time of opening, without later writes, to any number of readers beside the
   * writer. Nothing is locked. Table files are kept open although the writer may remove them, so `maxOpenFiles` has no
   * effect. The write-ahead log is read into memory. Default false.
   */
  readOnly?: boolean | undefined
}

export interface RocksLevelOptions<K, V> extends AbstractDatabaseOptions<K, V>, RocksOptions {}

export interface RocksOpenOptions extends RocksOptions {
  createIfMissing?: boolean | undefined
  errorIfExists?: boolean | undefined
  passive?: boolean | undefined
}

export function toNativeOptions(options: RocksOpenOptions): NativeOptions {
  const bits = integer('bloomFilterBitsPerKey', options.bloomFilterBitsPerKey ?? 10, 0)

  const readOnly = options.readOnly === true
  return {
    readOnly,
    createIfMissing: options.createIfMissing !== false && !readOnly,
    writeBufferSize: integer('writeBufferSize', options.writeBufferSize ?? 16 * MIB, 64 * 1024),
    maxWriteBufferNumber: integer('maxWriteBufferNumber', options.maxWriteBufferNumber ?? 3, 2),
    // Flushes and compactions that may run at once.
    maxBackgroundJobs: 2,
    maxOpenFiles: readOnly ? -1 : integer('maxOpenFiles', options.maxOpenFiles ?? 512, -1),
    maxFileOpeningThreads: 4,
    blockCache: options.blockCache !== false,
    // RocksDB refuses to cache index and filter blocks without a block cache.
    tableCacheIndexAndFilterBlocks: options.blockCache !== false && options.cacheIndexAndFilterBlocks !== false,
    tableBlockSize: integer('blockSize', options.blockSize ?? 8192, 1024),
    optimizeFiltersForMemory: true,
    filterPolicy: bits === 0 ? null : new Native.BloomFilterPolicy(bits),
    // After so many bytes the system is asked to write a table file out.
    bytesPerSync: MIB,
  }
}

// The binding aborts the process on a wrong type, so types are checked here.
function integer(name: string, value: unknown, least: number): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= least) return value
  throw new TypeError(`Option '${name}' must be an integer of at least ${least}, received ${String(value)}`)
}

/** RocksDB names its threads by their pools: `rocksdb:low` compacts, `rocksdb:high` flushes memtables. */
const COMPACTS = 'rocksdb:low'
/** A thread of this priority gets about a tenth of a core while others want it, too. */
const NICE = 10
const THREADS = '/proc/self/task'

/**
 * Lowers the priority of this process's compaction threads, as RocksDB's LowerThreadPoolCPUPriority() would, which the
 * binding lacks: compaction can wait, reads and writes cannot. When compaction falls too far behind, RocksDB slows
 * writes down and so gives it time. Works on Linux only. The threads begin with the first database of the process and
 * serve all.
 */
export async function lowerCompactionThreads(): Promise<void> {
  const threads = await readdir(THREADS).catch(() => [])
  await Promise.all(threads.map((thread) => lower(Number(thread))))
}

async function lower(thread: number): Promise<void> {
  try {
    const name = await readFile(`${THREADS}/${thread}/comm`, 'latin1')
    if (name.trimEnd() === COMPACTS && getPriority(thread) < NICE) setPriority(thread, NICE)
  } catch {
    // The thread has ended, or the system forbids this; it then goes on as it was.
  }
}

/** Bytes on disk beyond which RocksDB's own text log is emptied. It grows by about a thousandth of what is written. */
const MAX_BYTES = 16 * 1024 * 1024
/** Milliseconds between two checks of its size. */
const LOOK_MS = 60_000
/** stat() counts blocks of this many bytes. */
const BLOCK_BYTES = 512

/**
 * Bounds RocksDB's file LOG while the database in `path` is open, and removes older ones but the last, which may tell
 * why the database was closed. Call the returned function to end this. RocksDB has options for it, which the binding
 * does not take. RocksDB goes on writing at its own place in the file, so an emptied file is sparse.
 */
export function boundInfoLog(path: string): () => void {
  void removeOld(path).catch(() => undefined)
  const timer = setInterval(() => void empty(join(path, 'LOG')).catch(() => undefined), LOOK_MS)
  timer.unref()
  return () => clearInterval(timer)
}

async function removeOld(path: string): Promise<void> {
  // Their names end with the time, in µs, at which they were set aside.
  const old = (await readdir(path)).filter((name) => name.startsWith('LOG.old.')).sort()
  await Promise.all(old.slice(0, -1).map((name) => rm(join(path, name))))
}

async function empty(file: string): Promise<void> {
  const { blocks } = await stat(file)
  if (blocks * BLOCK_BYTES > MAX_BYTES) await truncate(file)
}
