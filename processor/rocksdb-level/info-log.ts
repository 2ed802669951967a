import { readdir, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'

/** What RocksDB tells of itself, about a thousandth of what is written: beyond so much on the disk, bytes, it is emptied. */
const MAX_BYTES = 16 * 1024 * 1024
/** How often that is looked at, ms. */
const LOOK_MS = 60_000
/** As stat() counts them. */
const BLOCK_BYTES = 512

/**
 * Keeps RocksDB's file LOG within a bound while the database in `path` is open, and removes those of before but the last,
 * which may tell why it was closed; what it gives ends that. RocksDB has options for it, which the binding does not take. RocksDB goes on writing at its place in the file,
 * so that an emptied one is sparse: what counts is what it takes on the disk. Best effort, as nothing depends on the file.
 */
export function boundInfoLog(path: string): () => void {
  void removeOld(path).catch(() => undefined)
  const timer = setInterval(() => void empty(join(path, 'LOG')).catch(() => undefined), LOOK_MS)
  timer.unref()
  return () => clearInterval(timer)
}

async function removeOld(path: string): Promise<void> {
  // Their names end with the time, in µs, at which they were put away.
  const old = (await readdir(path)).filter((name) => name.startsWith('LOG.old.')).sort()
  await Promise.all(old.slice(0, -1).map((name) => rm(join(path, name))))
}

async function empty(file: string): Promise<void> {
  const { blocks } = await stat(file)
  if (blocks * BLOCK_BYTES > MAX_BYTES) await truncate(file)
}
