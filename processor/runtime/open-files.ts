import { readFile } from 'node:fs/promises'
import type { Logger } from 'pino'

/**
 * Incoming connections leave this many files to libraries, RocksDB, scan threads and connections to other processes.
 * Under a low limit they leave a third of it.
 */
const OTHER_FILES = 1_000
const OTHER_SHARE = 1 / 3
/** The API gets this share when connections are few: each device has one, and few callers use the API. */
const API_SHARE = 1 / 4

/** Bounds how many incoming connections are open at once. */
export interface Connections {
  readonly api: number
  readonly mqtt: number
}

/**
 * Grants as many of the `wanted` connections as leave files for the log and the stores, which could not write without.
 * It logs when it grants fewer. Without `limits`, as on systems other than Linux, it grants all.
 */
export async function connectionsWithin(
  wanted: Connections,
  logger: Logger,
  limits = '/proc/self/limits',
): Promise<Connections> {
  const text = await readFile(limits, 'utf8').catch(() => '')
  // Node has raised this soft limit to the hard one. It may be `unlimited`.
  const limit = Number(/^Max open files +(\d+)/m.exec(text)?.[1] ?? Number.POSITIVE_INFINITY)
  const needed = wanted.api + wanted.mqtt + OTHER_FILES
  if (limit >= needed) return wanted
  const room = Math.floor(limit - Math.min(OTHER_FILES, limit * OTHER_SHARE))
  const api = Math.min(wanted.api, Math.max(Math.floor(room * API_SHARE), room - wanted.mqtt))
  const taken = { api, mqtt: Math.min(wanted.mqtt, room - api) }
  const what = 'the limit of open files is lower than all connections that may be open need: fewer are taken'
  // This is no warning: a small fleet never needs so many.
  logger.info({ limit, needed, ...taken }, `${what}; raise it (ulimit -n, LimitNOFILE of systemd)`)
  return taken
}
