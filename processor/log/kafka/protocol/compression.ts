import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { LogCorruptedError } from '../../../contract/errors.ts'

const GZIP = 1
const SNAPPY = 2
const LZ4 = 3
const ZSTD = 4

/** No record batch may grow beyond this: a small one could otherwise fill the memory. */
const MAX_DECOMPRESSED_BYTES = 256 * 1024 * 1024

/**
 * The records of a compressed batch. `codec`: the lowest three bits of its attributes. Throws LogCorruptedError for bytes
 * that do not decompress, and for a codec that Kafka did not have when this was written.
 */
export function decompress(codec: number, bytes: Buffer, where: string): Buffer {
  try {
    switch (codec) {
      case GZIP:
        return gunzipSync(bytes, { maxOutputLength: MAX_DECOMPRESSED_BYTES })
      case SNAPPY:
        return unsnappy(bytes)
      case LZ4:
        return unlz4(bytes)
      case ZSTD:
        return zstdDecompressSync(bytes, { maxOutputLength: MAX_DECOMPRESSED_BYTES })
    }
  } catch (error) {
    throw new LogCorruptedError(`${where}: a batch compressed with codec ${codec} cannot be read`, error)
  }
  throw new LogCorruptedError(`${where}: compression codec ${codec} is not known; 1 to 4 are`)
}

const XERIAL_MAGIC = Buffer.from([0x82, 0x53, 0x4e, 0x41, 0x50, 0x50, 0x59, 0])
const XERIAL_HEADER_BYTES = 16

/** Java clients frame snappy blocks as the xerial library does; librdkafka writes one bare block. */
function unsnappy(bytes: Buffer): Buffer {
  if (!bytes.subarray(0, 8).equals(XERIAL_MAGIC)) return snappyBlock(bytes)
  const blocks: Buffer[] = []
  for (let at = XERIAL_HEADER_BYTES; at < bytes.length; ) {
    const length = bytes.readInt32BE(at)
    blocks.push(snappyBlock(bytes.subarray(at + 4, at + 4 + length)))
    at += 4 + length
  }
  return Buffer.concat(blocks)
}

/** https://github.com/google/snappy/blob/main/format_description.txt */
function snappyBlock(bytes: Buffer): Buffer {
  let at = 0
  let length = 0
  for (let shift = 0; ; shift += 7) {
    const byte = bytes.readUInt8(at++)
    length += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) break
  }
  const out = new Output(length)
  while (at < bytes.length) {
    const tag = bytes.readUInt8(at++)
    const kind = tag & 3
    if (kind === 0) {
      let literal = tag >>> 2
      if (literal >= 60) {
        const size = literal - 59
        literal = bytes.readUIntLE(at, size)
        at += size
      }
      out.literal(bytes, at, literal + 1)
      at += literal + 1
    } else if (kind === 1) {
      out.copy(((tag >>> 5) << 8) | bytes.readUInt8(at++), ((tag >>> 2) & 7) + 4)
    } else {
      const size = kind === 2 ? 2 : 4
      out.copy(bytes.readUIntLE(at, size), (tag >>> 2) + 1)
      at += size
    }
  }
  return out.finish()
}

const LZ4_MAGIC = 0x184d2204
const LZ4_CONTENT_SIZE = 0x08
const LZ4_BLOCK_CHECKSUM = 0x10
const LZ4_DICTIONARY = 0x01
const LZ4_UNCOMPRESSED = 0x8000_0000

/** https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md; its checksums are left to the crc of the record batch. */
function unlz4(bytes: Buffer): Buffer {
  if (bytes.readUInt32LE(0) !== LZ4_MAGIC) throw new Error('not an LZ4 frame')
  const flags = bytes.readUInt8(4)
  let at = 7
  if ((flags & LZ4_CONTENT_SIZE) !== 0) at += 8
  if ((flags & LZ4_DICTIONARY) !== 0) at += 4
  const out = new Output()
  for (;;) {
    const size = bytes.readUInt32LE(at)
    at += 4
    if (size === 0) return out.finish()
    const length = size % LZ4_UNCOMPRESSED
    if (size >= LZ4_UNCOMPRESSED) out.literal(bytes, at, length)
    else lz4Block(bytes, at, at + length, out)
    at += length
    if ((flags & LZ4_BLOCK_CHECKSUM) !== 0) at += 4
  }
}

/** https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md */
function lz4Block(bytes: Buffer, start: number, end: number, out: Output): void {
  let at = start
  const length = (nibble: number): number => {
    let total = nibble
    if (nibble < 15) return total
    for (;;) {
      const byte = bytes.readUInt8(at++)
      total += byte
      if (byte < 255) return total
    }
  }
  while (at < end) {
    const token = bytes.readUInt8(at++)
    const literal = length(token >>> 4)
    out.literal(bytes, at, literal)
    at += literal
    if (at >= end) return
    const offset = bytes.readUInt16LE(at)
    at += 2
    out.copy(offset, length(token & 15) + 4)
  }
}

/** What is decompressed so far: later bytes are copies of earlier ones. */
class Output {
  #bytes: Buffer
  #at = 0

  constructor(expected = 64 * 1024) {
    if (expected > MAX_DECOMPRESSED_BYTES) throw new Error(`${expected} bytes are more than a batch may hold`)
    this.#bytes = Buffer.allocUnsafeSlow(expected)
  }

  literal(from: Buffer, start: number, length: number): void {
    if (start + length > from.length) throw new Error('a literal runs past the end')
    this.#reserve(length)
    from.copy(this.#bytes, this.#at, start, start + length)
    this.#at += length
  }

  copy(back: number, length: number): void {
    if (back === 0 || back > this.#at) throw new Error('a copy starts before the beginning')
    this.#reserve(length)
    const bytes = this.#bytes
    const end = this.#at + length
    // Source and target may overlap: that is how a run is written.
    for (let at = this.#at; at < end; at++) bytes[at] = bytes[at - back] as number
    this.#at = end
  }

  finish(): Buffer {
    return this.#bytes.subarray(0, this.#at)
  }

  #reserve(length: number): void {
    if (this.#at + length <= this.#bytes.length) return
    const size = Math.max(this.#bytes.length * 2, this.#at + length)
    if (size > MAX_DECOMPRESSED_BYTES) throw new Error(`more than ${MAX_DECOMPRESSED_BYTES} bytes`)
    const grown = Buffer.allocUnsafeSlow(size)
    this.#bytes.copy(grown, 0, 0, this.#at)
    this.#bytes = grown
  }
}
