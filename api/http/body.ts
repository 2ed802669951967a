import type { ServerResponse } from 'node:http'

/** Sizes are powers of two, from and to, bytes; what is larger is not kept. */
const MIN_BYTES = 16 * 1024
const MAX_BYTES = 1024 * 1024
/** Bytes of buffers that wait to be used again. */
const MAX_FREE_BYTES = 16 * 1024 * 1024

/**
 * Buffers of large answers, to be used again: memory from the system costs as much as what is copied into it, and has the
 * collector look through the whole heap each 64 MiB or so.
 */
export class Bodies {
  readonly #free = new Map<number, Buffer[]>()
  #freeBytes = 0

  /** Bytes that are free. */
  get freeBytes(): number {
    return this.#freeBytes
  }

  /** A buffer of `length` bytes, whatever they are, that is free again when `response` has been handed to the system. */
  take(length: number, response: ServerResponse): Buffer {
    if (length > MAX_BYTES) return Buffer.allocUnsafeSlow(length)
    const size = Math.max(MIN_BYTES, 2 ** Math.ceil(Math.log2(length)))
    const known = this.#free.get(size)?.pop()
    if (known !== undefined) this.#freeBytes -= size
    const buffer = known ?? Buffer.allocUnsafeSlow(size)
    // Of a response that is cut short nobody knows what the system still reads: then the collector has the buffer.
    response.once('finish', () => this.#give(buffer))
    return buffer.subarray(0, length)
  }

  #give(buffer: Buffer): void {
    const size = buffer.length
    if (this.#freeBytes + size > MAX_FREE_BYTES) return
    this.#freeBytes += size
    const free = this.#free.get(size)
    if (free === undefined) this.#free.set(size, [buffer])
    else free.push(buffer)
  }
}
