/** What is longer stays where it is: to copy it costs more than to keep it. */
const MAX_COPIED_BYTES = 4096
/** Of what one copy that somebody keeps holds in memory. */
const SEGMENT_BYTES = 64 * 1024
const NOTHING = Buffer.alloc(0)

/** Gives the memory of an ArrayBuffer back; it is empty from then on. Node 20 has no transfer(): there the collector does. */
export const free: ((buffer: ArrayBuffer) => void) | undefined =
  'transfer' in ArrayBuffer.prototype ? (buffer) => void buffer.transfer(0) : undefined

/** Whether it is copied, and may share its memory from then on. */
export function isSmall({ byteLength }: Buffer): boolean {
  return byteLength <= MAX_COPIED_BYTES
}

/**
 * Takes small keys and values of the binding over into memory that they share, and gives theirs back. Each has an
 * ArrayBuffer of its own, whose finalizer runs on the event loop once the collector has found it: those of a minor
 * collection, twenty thousand and more, in one go, which holds it up for 10 ms.
 */
export class Copies {
  #segment = NOTHING
  #at = 0
  /** Bytes that are expected and not taken yet. */
  #left = 0

  /** Of all that will be taken, before the first is: a segment is no larger than what is to come. */
  expect(bytes: Buffer): void {
    if (isSmall(bytes)) this.#left += bytes.byteLength
  }

  /** `bytes` itself when it is not copied; otherwise it is empty from then on. */
  take(bytes: Buffer): Buffer {
    const { byteLength } = bytes
    if (free === undefined || !isSmall(bytes) || !(bytes.buffer instanceof ArrayBuffer)) return bytes
    if (this.#at + byteLength > this.#segment.byteLength) {
      this.#segment = Buffer.allocUnsafeSlow(Math.min(this.#left, SEGMENT_BYTES))
      this.#at = 0
    }
    const start = this.#at
    this.#at += byteLength
    this.#left -= byteLength
    this.#segment.set(bytes, start)
    free(bytes.buffer)
    return this.#segment.subarray(start, this.#at)
  }
}
