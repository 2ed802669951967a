import { RocksLevelError, toLevelError } from './errors.ts'
import { manifestOf } from './folder.ts'
import { Native, type NativeDb, type NativeOptions } from './native.ts'

/** A writer changes its manifest a few times a second at most, and opening takes milliseconds. */
const ATTEMPTS = 20

/**
 * Opens a database beside the one that writes to it. RocksDB reads the manifest first and the logs after it, and takes no
 * log that is missing for a fault: what a writer flushed between the two would not be seen. So the manifest must be the
 * same before and after.
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

/** Undefined while a new one takes the place of the old one. */
function manifest(path: string): Promise<string | undefined> {
  return manifestOf(path).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw toLevelError(error, path)
  })
}
