// The record batches in a Fetch answer: format 2 alone (KIP-98), with the codecs gzip, snappy, LZ4 and zstd (KIP-110).

import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import lz4 from 'lz4-napi'
import snappy from 'snappy'
import { LogCorruptedError } from '../../../contract/errors.ts'
import type { BatchLimits, Headers, LogRecord, Offset } from '../../log.ts'
import {
  ATTRIBUTES_AT,
  BASE_TIMESTAMP_AT,
  BATCH_HEADER_BYTES,
  batchCrc,
  COUNT_AT,
  CRC_AT,
  LAST_OFFSET_DELTA_AT,
  LEADER_EPOCH_AT,
  LENGTH_AT,
  MAGIC_AT,
  MAX_TIMESTAMP_AT,
  PRODUCER_ID_AT,
  TRANSACTIONAL,
} from './record-batch.ts'
import { readInt64 } from './wire.ts'

const CODEC_MASK = 0x07
const LOG_APPEND_TIME = 0x08
const CONTROL = 0x20
const ABORT_MARKER = 0
/**
 * At most this many batches without records for the reader are skipped at once, about 3 ms: an answer may hold 30,000
 * markers.
 */
const MAX_PASSED = 4000

export interface AbortedTransaction {
  readonly producerId: number
  readonly firstOffset: Offset
}

/**
 * Walks the record batches of one fetch response, and gives the committed records at or after `next`, a slice at a time.
 * Control records, aborted records and what compaction took away only move `next`.
 */
export class FetchedRecords {
  readonly #where: string
  readonly #bytes: Buffer
  readonly #aborted: readonly AbortedTransaction[]
  readonly #aborting = new Set<number>()
  #nextAborted = 0
  /** Batches that the read under way has skipped. */
  #passed = 0
  /** Where the next batch header begins. */
  #at = 0
  next: Offset

  /** The open batch: its records, and the bases of their deltas. */
  #body: Buffer = Buffer.alloc(0)
  #bodyAt = 0
  #left = 0
  #baseOffset = 0
  #baseTimestamp = 0
  #appendTime: number | undefined
  #batchEnd: Offset = 0

  /** `where` names the partition in errors; `aborted` is in the order of first offsets. */
  constructor(where: string, bytes: Buffer, aborted: readonly AbortedTransaction[], from: Offset) {
    this.#where = where
    this.#bytes = bytes
    this.#aborted = aborted
    this.next = from
  }

  /**
   * Where the next fetch begins: after the last whole batch, with the epoch of the leader that wrote it; undefined
   * without a whole batch. Throws LogCorruptedError at a batch of an impossible length.
   */
  get end(): { readonly offset: Offset; readonly epoch: number } | undefined {
    const bytes = this.#bytes
    let last: number | undefined
    for (let at = 0; at + BATCH_HEADER_BYTES <= bytes.length; ) {
      const next = at + LENGTH_AT + 4 + bytes.readInt32BE(at + LENGTH_AT)
      if (next <= at) {
        throw new LogCorruptedError(`${this.#where}: a batch after ${this.next} has an impossible length`)
      }
      if (next > bytes.length) break
      last = at
      at = next
    }
    if (last === undefined) return undefined
    const offset = readInt64(bytes, last) + bytes.readInt32BE(last + LAST_OFFSET_DELTA_AT) + 1
    return { offset, epoch: bytes.readInt32BE(last + LEADER_EPOCH_AT) }
  }

  get byteLength(): number {
    return this.#bytes.length
  }

  get done(): boolean {
    return this.#left === 0 && !this.#whole()
  }

  /**
   * Adds records to `records`, which hold `held` bytes, up to `limits`, and returns the bytes they hold then. At least
   * one record is added to an empty list, unless too many batches are skipped first. Throws LogCorruptedError at an
   * unreadable batch, after the records before it were added.
   */
  read(limits: BatchLimits, records: LogRecord[], held: number): number {
    let bytes = held
    this.#passed = 0
    try {
      for (;;) {
        if (this.#left === 0 && !this.#open()) return bytes
        if (records.length >= limits.maxRecords) return bytes
        const start = this.#bodyAt
        const size = this.#varint()
        if (records.length > 0 && bytes + size > limits.maxBytes) {
          this.#bodyAt = start
          return bytes
        }
        const end = this.#bodyAt + size
        const record = this.#record()
        this.#bodyAt = end
        this.#left--
        if (record.offset >= this.next) {
          records.push(record)
          bytes += size
          this.next = record.offset + 1
        }
        if (this.#left === 0) this.next = Math.max(this.next, this.#batchEnd)
      }
    } catch (error) {
      if (error instanceof LogCorruptedError) throw error
      throw new LogCorruptedError(`${this.#where}: the batch at ${this.next} cannot be read`, error)
    }
  }

  /** A broker may cut the last batch of an answer: the next fetch brings it whole. */
  #whole(): boolean {
    const left = this.#bytes.length - this.#at
    return left >= BATCH_HEADER_BYTES && left >= LENGTH_AT + 4 + this.#bytes.readInt32BE(this.#at + LENGTH_AT)
  }

  /** Opens the next batch with committed records. False when there is none, or MAX_PASSED batches were skipped. */
  #open(): boolean {
    const bytes = this.#bytes
    while (this.#whole() && this.#passed < MAX_PASSED) {
      const start = this.#at
      const end = start + LENGTH_AT + 4 + bytes.readInt32BE(start + LENGTH_AT)
      this.#at = end
      const magic = bytes[start + MAGIC_AT]
      if (magic !== 2) {
        throw new LogCorruptedError(`${this.#where}: message format ${magic} is not read, only 2 is`)
      }
      if (bytes.readUInt32BE(start + CRC_AT) !== batchCrc(bytes, start, end)) {
        throw new LogCorruptedError(`${this.#where}: the CRC of the batch at ${this.next} does not fit`)
      }
      const attributes = bytes.readInt16BE(start + ATTRIBUTES_AT)
      this.#baseOffset = readInt64(bytes, start)
      this.#batchEnd = this.#baseOffset + bytes.readInt32BE(start + LAST_OFFSET_DELTA_AT) + 1
      const producerId = readInt64(bytes, start + PRODUCER_ID_AT)
      const count = bytes.readInt32BE(start + COUNT_AT)
      this.#beginAborted(this.#batchEnd)
      const control = (attributes & CONTROL) !== 0
      if (control && this.#isAbort(start + BATCH_HEADER_BYTES, count)) this.#aborting.delete(producerId)
      const aborted = (attributes & TRANSACTIONAL) !== 0 && this.#aborting.has(producerId)
      if (control || aborted || count === 0 || this.#batchEnd <= this.next) {
        this.next = Math.max(this.next, this.#batchEnd)
        this.#passed++
        continue
      }
      this.#baseTimestamp = readInt64(bytes, start + BASE_TIMESTAMP_AT)
      this.#appendTime = (attributes & LOG_APPEND_TIME) === 0 ? undefined : readInt64(bytes, start + MAX_TIMESTAMP_AT)
      this.#left = count
      const codec = attributes & CODEC_MASK
      if (codec === 0) {
        this.#body = bytes
        this.#bodyAt = start + BATCH_HEADER_BYTES
      } else {
        this.#body = decompress(codec, bytes.subarray(start + BATCH_HEADER_BYTES, end), this.#where)
        this.#bodyAt = 0
      }
      return true
    }
    return false
  }

  #beginAborted(before: Offset): void {
    for (;;) {
      const transaction = this.#aborted[this.#nextAborted]
      if (transaction === undefined || transaction.firstOffset >= before) return
      this.#aborting.add(transaction.producerId)
      this.#nextAborted++
    }
  }

  /** The key of a control record: version i16, type i16 (0 abort, 1 commit). */
  #isAbort(at: number, count: number): boolean {
    if (count === 0) return false
    this.#body = this.#bytes
    this.#bodyAt = at
    this.#varint()
    this.#bodyAt++
    this.#varint()
    this.#varint()
    this.#varint()
    return this.#bytes.readInt16BE(this.#bodyAt + 2) === ABORT_MARKER
  }

  #record(): LogRecord {
    this.#bodyAt++
    const timestamp = this.#baseTimestamp + this.#varint()
    const offset = this.#baseOffset + this.#varint()
    const keyBytes = this.#varint()
    const key = keyBytes < 0 ? null : this.#text(keyBytes)
    const valueBytes = this.#varint()
    let value: Buffer | null = null
    if (valueBytes >= 0) {
      value = this.#body.subarray(this.#bodyAt, this.#bodyAt + valueBytes)
      this.#bodyAt += valueBytes
    }
    const headers = this.#headers()
    return { offset, key, value, timestamp: this.#appendTime ?? timestamp, headers }
  }

  #headers(): Headers | undefined {
    let count = this.#varint()
    if (count === 0) return undefined
    const headers: Record<string, string> = {}
    while (count-- > 0) {
      const name = this.#text(this.#varint())
      const length = this.#varint()
      headers[name] = length < 0 ? '' : this.#text(length)
    }
    return headers
  }

  #text(length: number): string {
    const start = this.#bodyAt
    this.#bodyAt = start + length
    return this.#body.toString('utf8', start, start + length)
  }

  /** Zigzag varint of up to 53 bits. */
  #varint(): number {
    const body = this.#body
    let byte = body.readUInt8(this.#bodyAt++)
    if (byte < 0x80) return (byte >>> 1) ^ -(byte & 1)
    let value = byte & 0x7f
    let scale = 0x80
    do {
      byte = body.readUInt8(this.#bodyAt++)
      value += (byte & 0x7f) * scale
      scale *= 0x80
    } while (byte > 0x7f)
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2
  }
}

const GZIP = 1
const SNAPPY = 2
const LZ4 = 3
const ZSTD = 4

/** No record batch may grow beyond this: a small one could otherwise fill the memory. */
const MAX_DECOMPRESSED_BYTES = 256 * 1024 * 1024

/**
 * `codec` is the lowest three bits of the batch's attributes. Throws LogCorruptedError for bytes that do not
 * decompress, and for codecs newer than these four.
 */
function decompress(codec: number, bytes: Buffer, where: string): Buffer {
  try {
    switch (codec) {
      case GZIP:
        return gunzipSync(bytes, { maxOutputLength: MAX_DECOMPRESSED_BYTES })
      case SNAPPY:
        return unsnappy(bytes)
      case LZ4:
        // It grows at most 255 times.
        return lz4.decompressFrameSync(bytes)
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
/** No snappy block grows more than this many times: its shortest copy takes three bytes and gives 64. */
const SNAPPY_GROWTH = 22

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

function snappyBlock(bytes: Buffer): Buffer {
  let length = 0
  for (let at = 0, scale = 1; at === 0 || (bytes[at - 1] as number) > 0x7f; at++, scale *= 0x80) {
    length += (bytes.readUInt8(at) & 0x7f) * scale
  }
  // The library reserves what the block claims.
  if (length > bytes.length * SNAPPY_GROWTH) throw new Error(`${bytes.length} bytes claim to hold ${length}`)
  return snappy.uncompressSync(bytes, { asBuffer: true }) as Buffer
}
