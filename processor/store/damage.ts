import { existsSync, writeFileSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { databaseFailure, RetryableError, StoreCorruptedError } from '../contract/errors.ts'

/** RocksDB leaves files alone whose names are not its own. */
const MARK = 'DAMAGED'

/**
 * Leaves word in the folder of a database that it is damaged, for the next start. At once, as a process may end with
 * what the damage leads to. Throws what the file system does.
 */
export function markDamaged(folder: string, found: Error): void {
  writeFileSync(join(folder, MARK), `${found.message}\n`)
}

export function isMarkedDamaged(folder: string): boolean {
  return existsSync(join(folder, MARK))
}

/**
 * Removes what is in the folder, and not the folder itself, which may be a volume, or a link to one. The mark goes last: a
 * wipe that does not come to its end is made again.
 */
export async function emptyFolder(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name !== MARK) await rm(join(folder, name), { recursive: true })
  }
  await rm(join(folder, MARK), { force: true })
}

/** Whether a database that could not be opened, or read, is damaged. */
export function isDamage(error: unknown): boolean {
  return error instanceof StoreCorruptedError || databaseFailure(error).code === 'LEVEL_CORRUPTION'
}

/** What the database does, with its errors as those of the store: StoreCorruptedError, or RetryableError. */
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
