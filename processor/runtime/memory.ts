import { totalmem } from 'node:os'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'

const MIB = 1024 * 1024
/** With so much, bytes, a process takes all that its bounds allow: of the system or the container, and of V8's heap. */
const MEMORY = 1024 * MIB
const HEAP = 512 * MIB
/** With less than this share of them it does not run well anyway. */
const LEAST = 1 / 8

/** The share of what is usual that caches and buffers may take, where a process may use so many bytes. */
export function shareOf(memory: number, heap: number): number {
  return Math.max(LEAST, Math.min(1, memory / MEMORY, heap / HEAP))
}

/** Of a container (0 or a huge number where there is none), or else of the machine. */
const memory = Math.min(process.constrainedMemory() || Number.POSITIVE_INFINITY, totalmem())

/** Of this process. V8's limit is half of the memory unless `--max-old-space-size` says. */
export const MEMORY_SHARE = shareOf(memory, getHeapStatistics().heap_size_limit)

/** What a cache or a buffer may have in this process, of what is usual. */
export function inMemory(usual: number): number {
  return Math.ceil(usual * MEMORY_SHARE)
}

/**
 * V8 allocates in its old space what once lived long at the same place of the code. Node makes all streams at one place,
 * those of connections that stay and those of requests, whose remains there then hold on to young objects: each minor
 * collection kept a sixth of the new objects and paused for 10 to 25 ms. Without, it keeps next to none and takes 1 ms.
 */
export function keepRequestsYoung(): void {
  setFlagsFromString('--no-allocation-site-pretenuring')
}
