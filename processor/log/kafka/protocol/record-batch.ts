// Record batches, message format 2 (KIP-98), as a producer writes them.

import { crc32c } from '@node-rs/crc32'
import { ConfigurationError } from '../../../contract/errors.ts'
import { MAX_RECORD_BYTES } from '../../../contract/record.ts'
import type { Headers, NewRecord } from '../../log.ts'
import { writeInt64 } from './wire.ts'

/**
 * https://kafka.apache.org/documentation/#recordbatch:
 *
 *   base offset i64 | length i32 | leader epoch i32 | magic i8 | crc32c u32 | attributes i16 | last offset delta i32
 *   | base timestamp i64 | max timestamp i64 | producer id i64 | producer epoch i16 | base sequence i32 | count i32
 *   | records…
 */
export const BATCH_HEADER_BYTES = 61
export const LENGTH_AT = 8
export const LEADER_EPOCH_AT = 12
export const MAGIC_AT = 16
export const ATTRIBUTES_AT = 21
export const LAST_OFFSET_DELTA_AT = 23
export const BASE_TIMESTAMP_AT = 27
export const MAX_TIMESTAMP_AT = 35
export const PRODUCER_ID_AT = 43
const PRODUCER_EPOCH_AT = 51
const BASE_SEQUENCE_AT = 53
export const COUNT_AT = 57
/** CRC-32C (RFC 3720, appendix B.4) of everything from the attributes on. */
export const CRC_AT = 17
/** A bit of the attributes. */
export const TRANSACTIONAL = 0x10
/** Sequence numbers wrap to 0. */
const SEQUENCES = 2 ** 31

/** Length, attributes, two deltas, three lengths and a count: varints, at their longest. */
const MAX_RECORD_OVERHEAD_BYTES = 5 + 1 + 10 + 5 + 5 + 5 + 5

export interface Producer {
  readonly id: number
  readonly epoch: number
}

/** The most bytes `record` may take in a batch. */
export function sizeBound(record: NewRecord): number {
  // UTF-8 takes at most three bytes per UTF-16 code unit.
  let size = MAX_RECORD_OVERHEAD_BYTES + (record.key === null ? 0 : record.key.length * 3)
  if (record.value !== null) size += record.value.byteLength
  if (record.headers !== undefined) size += headersBytes(record.headers)
  return size
}

/** The sequence number of the batch after one of `count` records. */
export function nextSequence(sequence: number, count: number): number {
  return (sequence + count) % SEQUENCES
}

/** Encodes the records from `from` to before `to`. `bound` is the sum of their size bounds. */
export function encodeBatch(
  records: readonly NewRecord[],
  from: number,
  to: number,
  bound: number,
  producer: Producer,
  sequence: number,
  transactional: boolean,
): Buffer {
  const bytes = Buffer.allocUnsafeSlow(BATCH_HEADER_BYTES + bound)
  const base = (records[from] as NewRecord).timestamp
  let newest = base
  let at = BATCH_HEADER_BYTES
  for (let i = from; i < to; i++) {
    const record = records[i] as NewRecord
    if (record.timestamp > newest) newest = record.timestamp
    at = writeRecord(bytes, at, record, record.timestamp - base, i - from)
  }
  writeInt64(bytes, 0, 0)
  bytes.writeInt32BE(at - LENGTH_AT - 4, LENGTH_AT)
  bytes.writeInt32BE(-1, LEADER_EPOCH_AT)
  bytes[MAGIC_AT] = 2
  bytes.writeInt16BE(transactional ? TRANSACTIONAL : 0, ATTRIBUTES_AT)
  bytes.writeInt32BE(to - from - 1, LAST_OFFSET_DELTA_AT)
  writeInt64(bytes, base, BASE_TIMESTAMP_AT)
  writeInt64(bytes, newest, MAX_TIMESTAMP_AT)
  writeInt64(bytes, producer.id, PRODUCER_ID_AT)
  bytes.writeInt16BE(producer.epoch, PRODUCER_EPOCH_AT)
  bytes.writeInt32BE(sequence, BASE_SEQUENCE_AT)
  bytes.writeInt32BE(to - from, COUNT_AT)
  bytes.writeUInt32BE(batchCrc(bytes, 0, at), CRC_AT)
  return bytes.subarray(0, at)
}

/** The CRC of the batch from `start` to before `end`. */
export function batchCrc(bytes: Buffer, start: number, end: number): number {
  return crc32c(bytes.subarray(start + ATTRIBUTES_AT, end))
}

function writeRecord(bytes: Buffer, start: number, record: NewRecord, timestampDelta: number, delta: number): number {
  const { key, value, headers } = record
  const keyBytes = key === null ? -1 : utf8Bytes(key)
  const valueBytes = value === null ? -1 : value.byteLength
  const size =
    1 +
    varintBytes(timestampDelta) +
    varintBytes(delta) +
    varintBytes(keyBytes) +
    Math.max(keyBytes, 0) +
    varintBytes(valueBytes) +
    Math.max(valueBytes, 0) +
    (headers === undefined ? 1 : headersBytes(headers))
  let at = writeVarint(bytes, start, size)
  bytes[at++] = 0
  at = writeVarint(bytes, at, timestampDelta)
  at = writeVarint(bytes, at, delta)
  at = writeVarint(bytes, at, keyBytes)
  if (key !== null) at = writeText(bytes, at, key, keyBytes)
  at = writeVarint(bytes, at, valueBytes)
  if (value !== null) {
    bytes.set(value, at)
    at += valueBytes
  }
  if (headers !== undefined) return writeHeaders(bytes, at, headers)
  bytes[at++] = 0
  return at
}

function headersBytes(headers: Headers): number {
  let count = 0
  let size = 0
  for (const name in headers) {
    const nameBytes = Buffer.byteLength(name)
    const valueBytes = Buffer.byteLength(headers[name] as string)
    size += varintBytes(nameBytes) + nameBytes + varintBytes(valueBytes) + valueBytes
    count++
  }
  return varintBytes(count) + size
}

function writeHeaders(bytes: Buffer, start: number, headers: Headers): number {
  const names = Object.keys(headers)
  let at = writeVarint(bytes, start, names.length)
  for (const name of names) {
    const value = headers[name] as string
    at = writeVarint(bytes, at, Buffer.byteLength(name))
    at += bytes.write(name, at)
    at = writeVarint(bytes, at, Buffer.byteLength(value))
    at += bytes.write(value, at)
  }
  return at
}

function utf8Bytes(text: string): number {
  // Device ids are ASCII: the loop is cheaper than a native call for so few characters.
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0x7f) return Buffer.byteLength(text)
  return text.length
}

function writeText(bytes: Buffer, start: number, text: string, length: number): number {
  if (length !== text.length) return start + bytes.write(text, start)
  for (let i = 0; i < length; i++) bytes[start + i] = text.charCodeAt(i)
  return start + length
}

/** Bytes of `value` as a zigzag varint. */
function varintBytes(value: number): number {
  let rest = value < 0 ? -2 * value - 1 : 2 * value
  let size = 1
  while (rest > 0x7f) {
    rest = Math.floor(rest / 0x80)
    size++
  }
  return size
}

/** Writes a zigzag varint of up to 53 bits, and returns where it ends. */
function writeVarint(bytes: Buffer, start: number, value: number): number {
  let rest = value < 0 ? -2 * value - 1 : 2 * value
  let at = start
  while (rest > 0x7fff_ffff) {
    bytes[at++] = (rest % 0x80) | 0x80
    rest = Math.floor(rest / 0x80)
  }
  while (rest > 0x7f) {
    bytes[at++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  bytes[at++] = rest
  return at
}

/** A record batch ends before it exceeds this. */
export const MAX_BATCH_BYTES = 1024 * 1024

export function tooLarge(bytes: number): ConfigurationError {
  const limit = `a record may take ${MAX_RECORD_BYTES} bytes`
  return new ConfigurationError(
    'RECORD_TOO_LARGE',
    `a record of about ${bytes} bytes: ${limit}; have its sender limit it`,
  )
}
