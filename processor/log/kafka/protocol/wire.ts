// Kafka's primitive types (KIP-482 for the compact ones and tagged fields), and how responses are framed.

import type { OnReadOpts } from 'node:net'
import { ownCopy } from '../../../contract/json.ts'

/**
 * https://kafka.apache.org/protocol#protocol_types, big-endian. 64-bit integers are numbers: offsets, times and
 * producer ids stay far below 2^53.
 */
const TWO_32 = 0x1_0000_0000

/** The replica id of a client that is no broker. */
export const CONSUMER = -1

export class WireWriter {
  #bytes: Buffer
  #at = 0

  constructor(capacity = 256) {
    this.#bytes = Buffer.allocUnsafe(capacity)
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#at)
  }

  int8(value: number): this {
    this.#reserve(1)
    this.#at = this.#bytes.writeInt8(value, this.#at)
    return this
  }

  int16(value: number): this {
    this.#reserve(2)
    this.#at = this.#bytes.writeInt16BE(value, this.#at)
    return this
  }

  int32(value: number): this {
    this.#reserve(4)
    this.#at = this.#bytes.writeInt32BE(value, this.#at)
    return this
  }

  int64(value: number): this {
    this.#reserve(8)
    writeInt64(this.#bytes, value, this.#at)
    this.#at += 8
    return this
  }

  string(value: string | null): this {
    return value === null ? this.int16(-1) : this.int16(Buffer.byteLength(value)).#text(value)
  }

  compactString(value: string): this {
    return this.unsignedVarint(Buffer.byteLength(value) + 1).#text(value)
  }

  raw(bytes: Uint8Array): this {
    this.#reserve(bytes.byteLength)
    this.#bytes.set(bytes, this.#at)
    this.#at += bytes.byteLength
    return this
  }

  unsignedVarint(value: number): this {
    this.#reserve(5)
    let rest = value
    while (rest > 0x7f) {
      this.#bytes[this.#at++] = (rest & 0x7f) | 0x80
      rest >>>= 7
    }
    this.#bytes[this.#at++] = rest
    return this
  }

  #text(value: string): this {
    this.#reserve(Buffer.byteLength(value))
    this.#at += this.#bytes.write(value, this.#at)
    return this
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return
    const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#at + bytes))
    this.#bytes.copy(grown, 0, 0, this.#at)
    this.#bytes = grown
  }
}

/** Reading past the end throws RangeError. */
export class WireReader {
  readonly bytes: Buffer
  at: number

  constructor(bytes: Buffer, at = 0) {
    this.bytes = bytes
    this.at = at
  }

  int8(): number {
    return this.bytes.readInt8(this.at++)
  }

  int16(): number {
    const value = this.bytes.readInt16BE(this.at)
    this.at += 2
    return value
  }

  int32(): number {
    const value = this.bytes.readInt32BE(this.at)
    this.at += 4
    return value
  }

  int64(): number {
    const value = readInt64(this.bytes, this.at)
    this.at += 8
    return value
  }

  string(): string | null {
    return this.#text(this.int16())
  }

  compactString(): string | null {
    return this.#text(this.unsignedVarint() - 1)
  }

  uuid(): string {
    const value = this.bytes.toString('base64url', this.at, this.at + 16)
    this.at += 16
    return value
  }

  array<T>(read: () => T): T[] {
    return times(this.int32(), read)
  }

  compactArray<T>(read: () => T): T[] {
    return times(this.unsignedVarint() - 1, read)
  }

  /** Steps over a compact array of 32-bit integers, and returns its length. */
  skipInt32s(): number {
    const length = Math.max(0, this.unsignedVarint() - 1)
    this.at += length * 4
    return length
  }

  bytesOrNull(): Buffer | null {
    return this.#view(this.int32())
  }

  unsignedVarint(): number {
    let value = 0
    let shift = 0
    for (;;) {
      const byte = this.bytes.readUInt8(this.at++)
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value >>> 0
      shift += 7
    }
  }

  compactBytesOrNull(): Buffer | null {
    return this.#view(this.unsignedVarint() - 1)
  }

  /** Tagged fields (KIP-482). `read` is called at each field with its tag; it need not read anything. */
  tags(read?: (tag: number) => void): void {
    let left = this.unsignedVarint()
    while (left-- > 0) {
      const tag = this.unsignedVarint()
      const next = this.unsignedVarint() + this.at
      read?.(tag)
      this.at = next
    }
  }

  #text(length: number): string | null {
    if (length < 0) return null
    const value = this.bytes.toString('utf8', this.at, this.at + length)
    this.at += length
    return value
  }

  #view(length: number): Buffer | null {
    if (length < 0) return null
    const value = this.bytes.subarray(this.at, this.at + length)
    this.at += length
    return value
  }
}

function times<T>(length: number, read: () => T): T[] {
  const values: T[] = []
  for (let i = 0; i < length; i++) values.push(read())
  return values
}

export function readInt64(bytes: Buffer, at: number): number {
  return bytes.readInt32BE(at) * TWO_32 + bytes.readUInt32BE(at + 4)
}

export function writeInt64(bytes: Buffer, value: number, at: number): void {
  bytes.writeInt32BE(Math.floor(value / TWO_32), at)
  bytes.writeUInt32BE(value >>> 0, at + 4)
}

/** The 32-bit size before each response does not count itself. */
export const SIZE_BYTES = 4

/**
 * A larger size means that the other side is no Kafka: fetches are bounded far below, and batches by
 * message.max.bytes.
 */
const MAX_RESPONSE_BYTES = 256 * 1024 * 1024

/** Responses that fit here are read many at a time. */
const SHARED_BYTES = 16 * 1024

/**
 * Cuts the bytes from a broker into responses. A large one is read from the socket straight into memory of its own
 * size: joining pieces would take twice the memory outside V8's heap, and make V8 collect its whole heap again and
 * again.
 */
export class Responses {
  readonly #give: (response: Buffer) => void
  readonly #shared = Buffer.allocUnsafeSlow(SHARED_BYTES)
  /** Bytes in `#shared` of a size that has not arrived whole. */
  #held = 0
  #response: Buffer | undefined
  /** Bytes of `#response` that have arrived. */
  #come = 0

  /** `give` gets each response with its size, in memory that nobody else writes to. */
  constructor(give: (response: Buffer) => void) {
    this.#give = give
  }

  /** The next bytes are to be read into this; never empty. */
  get target(): Buffer {
    return this.#response?.subarray(this.#come) ?? this.#shared.subarray(this.#held)
  }

  /** Tells that `bytes` were read into `target`. Throws RangeError when the other side is no Kafka. */
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

/** Options with which a socket gives whole responses; `fail` gets a RangeError when the other side is no Kafka. */
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
