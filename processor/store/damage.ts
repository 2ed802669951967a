import { existsSync, writeFileSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { databaseFailure, RetryableError, StoreCorruptedError } from '../contract/errors.ts'

/** RocksDB leaves files alone whose names are not its own. */
const MARK = 'DAMAGED'

/**
 * Marks the folder of a database as damaged for the next start, at once, because the process may end over the damage.
 * Throws what the file system throws.
 */
export function markDamaged(folder: string, found: Error): void {
  writeFileSync(join(folder, MARK), `${found.message}\n`)
}

export function isMarkedDamaged(folder: string): boolean {
  return existsSync(join(folder, MARK))
}

/**
 * Empties the folder but keeps it, since it may be a volume or a link to one. The mark goes last, so that an unfinished
 * wipe is repeated.
 */
export async function emptyFolder(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name !== MARK) await rm(join(folder, name), { recursive: true })
  }
  await rm(join(folder, MARK), { force: true })
}

export function isDamage(error: unknown): boolean {
  return error instanceof StoreCorruptedError || databaseFailure(error).code === 'LEVEL_CORRUPTION'
}

/** Turns errors of the database into those of the store: StoreCorruptedError, or RetryableError. */
export async function guarded<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await operation()
  } catch (error) {
    const { code, message } = error as { code?: string; message: string }
    if (code === 'LEVEL_CORRUPTION') {
      throw new StoreCorruptedError(`the store is damaged and must be restored: ${message}`, error)
    }
    throw new RetryableError('STORE_UNAVAILABLE', `the store cannot be read or written now: ${message}`, error)
  }
}
