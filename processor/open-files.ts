import { readFile } from 'node:fs/promises'
import type { Logger } from 'pino'

/** What a process has open beside the connections it takes: libraries, files of RocksDB, connections to other processes. */
const OTHER_FILES = 1_000

/**
 * Tells when not as many `connections` can be open as are taken: libuv closes those beyond the limit without a word. Where
 * `limits` is not there, as on other systems than Linux, nothing is known.
 */
export async function tellOpenFiles(connections: number, logger: Logger, limits = '/proc/self/limits'): Promise<void> {
  const text = await readFile(limits, 'utf8').catch(() => '')
  // The soft one; Node has raised it to the hard one. It may be `unlimited`.
  const limit = Number(/^Max open files +(\d+)/m.exec(text)?.[1] ?? Number.POSITIVE_INFINITY)
  const needed = connections + OTHER_FILES
  if (limit >= needed) return
  const what = 'the limit of open files is lower than all connections that may be open need; those beyond it are closed'
  // A small fleet never comes to it.
  logger.info({ limit, needed }, `${what}: raise it (ulimit -n, LimitNOFILE of systemd)`)
}
