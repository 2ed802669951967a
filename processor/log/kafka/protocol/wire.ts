/**
 * Kafka's primitive types (https://kafka.apache.org/protocol#protocol_types), big-endian. 64-bit integers are numbers:
 * offsets, times and producer ids stay far below 2^53.
 */
const TWO_32 = 0x1_0000_0000

/** The id of a replica, of who asks and is none. */
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

/** Reads what it is told to; reading past the end throws RangeError. */
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

  /** Steps over a compact array of 32-bit integers. Its length. */
  skipInt32s(): number {
    const length = Math.max(0, this.unsignedVarint() - 1)
    this.at += length * 4
    return length
  }

  /** A view, not a copy. */
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

  /** A view, not a copy. */
  compactBytesOrNull(): Buffer | null {
    return this.#view(this.unsignedVarint() - 1)
  }

  /** Tagged fields (KIP-482). `read` is called at the beginning of each with its tag; whatever it reads, all is stepped over. */
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
