import type { OnReadOpts } from 'node:net'
import { ownCopy } from '../../../contract/own-copy.ts'

/** The size of a response comes before it, and counts itself not. */
export const SIZE_BYTES = 4
/** A longer response is none: what is fetched at once is bounded far below, and a batch by the brokers' message.max.bytes. */
const MAX_RESPONSE_BYTES = 256 * 1024 * 1024
/** Responses that fit are read many at a time. */
const SHARED_BYTES = 16 * 1024

/**
 * Cuts what a broker sends into responses. A large one is read from the socket straight into memory of its own size: in
 * pieces that are put together it would take twice the memory, for which V8 collects its whole heap ever again.
 */
export class Responses {
  readonly #give: (response: Buffer) => void
  readonly #shared = Buffer.allocUnsafeSlow(SHARED_BYTES)
  /** Bytes of `#shared` that are a part of a size. */
  #held = 0
  #response: Buffer | undefined
  /** Bytes of `#response` that have come. */
  #come = 0

  /** `give` gets each response as it came, its size included, in memory that nobody else writes to. */
  constructor(give: (response: Buffer) => void) {
    this.#give = give
  }

  /** Where the next bytes are to be read to; never empty. */
  get target(): Buffer {
    return this.#response?.subarray(this.#come) ?? this.#shared.subarray(this.#held)
  }

  /** So many bytes have been read to `target`. Throws RangeError when the other side speaks something else than Kafka. */
  read(bytes: number): void {
    if (this.#response !== undefined) {
      this.#come += bytes
      if (this.#come < this.#response.length) return
      const response = this.#response
      this.#response = undefined
      this.#give(response)
      return
    }
    const shared = this.#shared
    const end = this.#held + bytes
    let from = 0
    while (end - from >= SIZE_BYTES) {
      const size = shared.readInt32BE(from)
      if (size < 0 || size > MAX_RESPONSE_BYTES) throw new RangeError(`${size} bytes are no response of a Kafka broker`)
      const next = from + SIZE_BYTES + size
      if (next > end) {
        this.#response = Buffer.allocUnsafeSlow(SIZE_BYTES + size)
        this.#come = shared.copy(this.#response, 0, from, end)
        this.#held = 0
        return
      }
      this.#give(ownCopy(shared.subarray(from, next)))
      from = next
    }
    shared.copyWithin(0, from, end)
    this.#held = end - from
  }
}

/** Has a socket give whole responses, and `fail` with a RangeError when the other side speaks something else than Kafka. */
export function readResponses(give: (response: Buffer) => void, fail: (error: Error) => void): OnReadOpts {
  const responses = new Responses(give)
  return {
    buffer: () => responses.target,
    callback(bytes) {
      try {
        responses.read(bytes)
      } catch (error) {
        fail(error as Error)
      }
      return true
    },
  }
}
