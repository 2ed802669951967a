import type { EventEmitter } from 'node:events'

export type RocksErrorCode =
  | 'LEVEL_LOCKED'
  | 'LEVEL_NO_SPACE'
  | 'LEVEL_CORRUPTION'
  | 'LEVEL_IO_ERROR'
  | 'LEVEL_NOT_FOUND'
  | 'LEVEL_ALREADY_EXISTS'
  | 'LEVEL_READ_ONLY'
  | 'LEVEL_ROCKSDB_ERROR'

/** The native error is the cause. */
export class RocksLevelError extends Error {
  readonly code: RocksErrorCode

  constructor(code: RocksErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'RocksLevelError'
    this.code = code
  }
}

/** RocksDB's texts say that this process holds the lock, that another does on a POSIX system, or on Windows. */
const LOCKED = /lock hold by current process|while lock file.*temporarily unavailable|used by another process/i

/**
 * RocksDB reports corruption and I/O errors with the same errno. The text of an I/O error begins with the failed
 * operation.
 */
const CORRUPTED =
  /corrupt|checksum|mismatch|truncated|bad (entry|magic|block)|too short|not an sstable|can't access|malformed|missing|VersionEdit|no meta/i

/** CURRENT could be read, but the file that it names is gone. */
const LOST_MANIFEST = /MANIFEST-\d+: No such file/

/**
 * Gives a native error its code. rocksdb-native wraps some errors ("Batch was not applied") and passes on RocksDB's
 * text with a rough errno, so the code comes from these two of the innermost error.
 */
export function toLevelError(thrown: unknown, path: string): RocksLevelError {
  const error = innermost(thrown)
  const text = error instanceof Error ? error.message : String(error)
  const native = error instanceof Error && 'code' in error ? String(error.code) : ''

  return new RocksLevelError(codeOf(native, text), `RocksDB at ${path}: ${text}`, error)
}

/** Makes the error of `toLevelError`, and tells damage to the database's listeners, whatever operation met it. */
export function failureOf(
  db: { readonly location: string; emit: EventEmitter['emit'] },
  thrown: unknown,
): RocksLevelError {
  const failure = toLevelError(thrown, db.location)
  if (failure.code === 'LEVEL_CORRUPTION') db.emit('corruption', failure)
  return failure
}

function innermost(thrown: unknown): unknown {
  if (thrown instanceof AggregateError) return innermost(thrown.errors.find((e) => e != null) ?? thrown.message)
  if (thrown instanceof Error && thrown.cause instanceof Error) return innermost(thrown.cause)
  return thrown
}

function codeOf(native: string, text: string): RocksErrorCode {
  if (native === 'ENOSPC' || /no space left|disk quota|space limit/i.test(text)) return 'LEVEL_NO_SPACE'
  if (LOCKED.test(text)) return 'LEVEL_LOCKED'
  if (/read only mode/i.test(text)) return 'LEVEL_READ_ONLY'
  if (LOST_MANIFEST.test(text)) return 'LEVEL_CORRUPTION'
  if (/^while /i.test(text)) return 'LEVEL_IO_ERROR'
  if (CORRUPTED.test(text)) return 'LEVEL_CORRUPTION'
  if (native === 'EIO' || native === 'EROFS') return 'LEVEL_IO_ERROR'
  return 'LEVEL_ROCKSDB_ERROR'
}
