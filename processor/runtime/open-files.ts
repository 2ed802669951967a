import { readFile } from 'node:fs/promises'
import type { Logger } from 'pino'

/**
 * What a process has open beside the connections it takes: libraries, files of RocksDB, threads that scan, connections to
 * other processes. Where only few files may be open it does with a third of them: its data is small then, or it must be
 * given more.
 */
const OTHER_FILES = 1_000
const OTHER_SHARE = 1 / 3
/** Of the connections, where not all that are taken may be open: the API is asked by few, and each device has one. */
const API_SHARE = 1 / 4

/** How many are open at once, of those that begin elsewhere. */
export interface Connections {
  readonly api: number
  readonly mqtt: number
}

/**
 * As many of the `wanted` connections as may be open while the log and the stores can open files: without one they take no
 * writes, for as long as the connections last. Tells when these are fewer. Where `limits` is not there, as on other systems
 * than Linux, nothing is known.
 */
export async function connectionsWithin(
  wanted: Connections,
  logger: Logger,
  limits = '/proc/self/limits',
): Promise<Connections> {
  const text = await readFile(limits, 'utf8').catch(() => '')
  // The soft one; Node has raised it to the hard one. It may be `unlimited`.
  const limit = Number(/^Max open files +(\d+)/m.exec(text)?.[1] ?? Number.POSITIVE_INFINITY)
  const needed = wanted.api + wanted.mqtt + OTHER_FILES
  if (limit >= needed) return wanted
  const room = Math.floor(limit - Math.min(OTHER_FILES, limit * OTHER_SHARE))
  const api = Math.min(wanted.api, Math.max(Math.floor(room * API_SHARE), room - wanted.mqtt))
  const taken = { api, mqtt: Math.min(wanted.mqtt, room - api) }
  const what = 'the limit of open files is lower than all connections that may be open need: fewer are taken'
  // A small fleet never comes to it.
  logger.info({ limit, needed, ...taken }, `${what}; raise it (ulimit -n, LimitNOFILE of systemd)`)
  return taken
}
