import { totalmem } from 'node:os'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'

const MIB = 1024 * 1024
/** Bytes of memory, and of V8's heap, from which on caches and buffers have their full size. */
const MEMORY = 1024 * MIB
const HEAP = 512 * MIB
/** Least share; with less memory a process does not run well anyway. */
const LEAST = 1 / 8

/** The share of their full size that caches and buffers get in a process with this memory and heap, bytes. */
export function shareOf(memory: number, heap: number): number {
  return Math.max(LEAST, Math.min(1, memory / MEMORY, heap / HEAP))
}

/** The container's limit (0 or huge without one), or the machine's memory. */
const memory = Math.min(process.constrainedMemory() || Number.POSITIVE_INFINITY, totalmem())

/** V8's heap limit is half of the memory unless `--max-old-space-size` sets it. */
export const MEMORY_SHARE = shareOf(memory, getHeapStatistics().heap_size_limit)

/** The size in this process of a cache or buffer whose full size is `usual`. */
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
