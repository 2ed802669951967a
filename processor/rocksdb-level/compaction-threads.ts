import { readdir, readFile } from 'node:fs/promises'
import { getPriority, setPriority } from 'node:os'

/** RocksDB names its threads by their pools: those of `rocksdb:low` compact, those of `rocksdb:high` write memtables out. */
const COMPACTS = 'rocksdb:low'
/** About a tenth of a core on which others want to run, too. */
const NICE = 10
const THREADS = '/proc/self/task'

/**
 * Has the threads of this process that compact yield to all others, as RocksDB's LowerThreadPoolCPUPriority() would, which
 * the binding does not have: compaction can wait, reads and writes cannot. Where it waits for too long RocksDB slows writes
 * down, and it gets its time. On Linux; threads of a process begin with its first database, and serve all.
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
    // It has ended meanwhile, or may not be touched here: then it goes on as it was.
  }
}
