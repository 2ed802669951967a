import { totalmem } from 'node:os'
import { getHeapStatistics, setFlagsFromString } from 'node:v8'

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
