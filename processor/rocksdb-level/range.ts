import { bytes } from './native.ts'

/** The keys from `start` on and before `end`, in RocksDB's order (bytewise). No end: to the last key. */
export interface Range {
  readonly start: Buffer
  readonly end: Buffer | undefined
}

export interface RangeBounds {
  gt?: Buffer | undefined
  gte?: Buffer | undefined
  lt?: Buffer | undefined
  lte?: Buffer | undefined
}

const NONE = Buffer.alloc(0)
const ZERO = Buffer.alloc(1)

/** Brings abstract-level's four bounds to one shape. The inclusive bound wins over the exclusive one, as it says. */
export function toRange(bounds: RangeBounds): Range {
  const start = bounds.gte ?? (bounds.gt === undefined ? NONE : successor(bounds.gt))
  const end = bounds.lte === undefined ? bounds.lt : successor(bounds.lte)
  bytes(start)
  if (end !== undefined) bytes(end)
  return { start, end }
}

/** The first key after `key`. */
export function successor(key: Buffer): Buffer {
  return Buffer.concat([key, ZERO], key.length + 1)
}

export function isEmpty(range: Range): boolean {
  return range.end !== undefined && Buffer.compare(range.start, range.end) >= 0
}

export function includes(range: Range, key: Buffer): boolean {
  return Buffer.compare(range.start, key) <= 0 && (range.end === undefined || Buffer.compare(key, range.end) < 0)
}
