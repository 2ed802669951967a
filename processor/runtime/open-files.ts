import { readFile } from 'node:fs/promises'
import type { Logger } from 'pino'

/**
 * Files open beside incoming connections: libraries, RocksDB's files, scan threads, connections to other processes. Under a
 * low limit they get a third of it.
 */
const OTHER_FILES = 1_000
const OTHER_SHARE = 1 / 3
/** The API's share of too few connections: each device has one, and few callers use the API. */
const API_SHARE = 1 / 4

/** Bounds of incoming connections that are open at once. */
export interface Connections {
  readonly api: number
  readonly mqtt: number
}

/**
 * As many of the `wanted` connections as leave files for the log and the stores, which could not write without. Logs when
 * they are fewer. Without `limits`, as on systems other than Linux, all are allowed.
 */
export async function connectionsWithin(
  wanted: Connections,
  logger: Logger,
  limits = '/proc/self/limits',
): Promise<Connections> {
  const text = await readFile(limits, 'utf8').catch(() => '')
  // The soft limit, which Node has raised to the hard one. It may be `unlimited`.
  const limit = Number(/^Max open files +(\d+)/m.exec(text)?.[1] ?? Number.POSITIVE_INFINITY)
  const needed = wanted.api + wanted.mqtt + OTHER_FILES
  if (limit >= needed) return wanted
  const room = Math.floor(limit - Math.min(OTHER_FILES, limit * OTHER_SHARE))
  const api = Math.min(wanted.api, Math.max(Math.floor(room * API_SHARE), room - wanted.mqtt))
  const taken = { api, mqtt: Math.min(wanted.mqtt, room - api) }
  const what = 'the limit of open files is lower than all connections that may be open need: fewer are taken'
  // Not a warning: a small fleet never needs so many.
  logger.info({ limit, needed, ...taken }, `${what}; raise it (ulimit -n, LimitNOFILE of systemd)`)
  return taken
}
