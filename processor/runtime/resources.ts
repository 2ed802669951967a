import { readFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'
import type { Logger } from 'pino'

const MIB = 1024 * 1024
/** With this much memory and V8 heap, in bytes, caches and buffers have their full size. */
const MEMORY = 1024 * MIB
const HEAP = 512 * MIB
/** No share is smaller: a process with less memory does not run well anyway. */
const LEAST = 1 / 8

/** Returns the share of their full size that caches and buffers get; memory and heap are in bytes. */
export function shareOf(memory: number, heap: number): number {
  return Math.max(LEAST, Math.min(1, memory / MEMORY, heap / HEAP))
}

/** A container's limit counts where there is one; Node gives 0 or a huge number without one. */
const memory = Math.min(process.constrainedMemory() || Number.POSITIVE_INFINITY, totalmem())

/** V8's heap limit is half of the memory unless `--max-old-space-size` sets it. */
export const MEMORY_SHARE = shareOf(memory, getHeapStatistics().heap_size_limit)

/** Scales the size of a cache or buffer to this process. */
export function inMemory(usual: number): number {
  return Math.ceil(usual * MEMORY_SHARE)
}

/**
 * V8 allocates objects in its old space when earlier ones from the same place in the code lived long. Node makes all
 * streams at one place, those of long connections and those of requests. Dead streams of requests in the old space then
 * hold on to young objects: each minor collection kept a sixth of the new objects and paused for 10 to 25 ms. Without
 * this it keeps next to none and takes 1 ms.
 */
export function keepRequestsYoung(): void {
  setFlagsFromString('--no-allocation-site-pretenuring')
}

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
