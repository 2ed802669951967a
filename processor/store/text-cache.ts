import { murmur2 } from '../contract/partition.ts'
import type { Slice } from '../contract/query.ts'

export interface TextLimits {
  /** Approximate number of statuses. There is room for twice as many, because hashing fills it unevenly. */
  readonly maxEntries: number
  /** Bytes of JSON. */
  readonly maxBytes: number
}

/**
 * Places for statuses with one hash; the oldest makes room. With 4 places one status in 60 was pushed out while other
 * places were free.
 */
const WAYS = 8
/** Fields of a place: number of its segment, start and end in it, owner. */
const FIELDS = 4
const SEGMENT = 0
const START = 1
const END = 2
const OWNER = 3
/** A segment has this size, or `maxBytes` if that is less. */
const SEGMENT_BYTES = 1024 * 1024
/** A status larger than this share of a segment is not kept, because it would push out thousands. */
const MAX_TEXT_SHARE = 1 / 16
/** Texts are aligned to the lines of the processor's cache. */
const LINE_BYTES = 64
/** Every text begins with these bytes, followed by the device id. */
const HEAD_BYTES = '{"deviceId":"'.length
const QUOTE = 0x22
/** Statuses prefetched at once: enough to keep the memory busy, and few enough for a core's cache. */
const MAX_TOUCHED = 128
/** Bytes prefetched of each. From there on the core's own prefetcher sees the sequence. */
const MAX_TOUCHED_BYTES = 1024

/**
 * The JSON of statuses that were read lately, encoded once per change and not once per read. A read mostly waits for
 * memory, so a status is found by arithmetic in two tables, not along objects, and its id is compared where the answer is
 * copied from anyway. Texts fill one segment after the other. At the bound the oldest segment is let go; it lives on
 * while an answer uses it, because a text is never overwritten.
 */
export class TextCache {
  readonly #sets: number
  readonly #hashes: Int32Array
  readonly #places: Int32Array
  /** Segment n is at n modulo their number. */
  readonly #segments: Buffer[]
  readonly #segmentBytes: number
  #segment = -1
  #at: number
  #owners = 0
  /** Holds the sum of the prefetched bytes, because the compiler drops a load whose value is unused. */
  readonly #touched = new Int32Array(1)
  /** Hashes and ways of the statuses being prefetched. */
  readonly #sought = new Int32Array(MAX_TOUCHED)
  readonly #ways = new Int32Array(MAX_TOUCHED)

  constructor({ maxEntries, maxBytes }: TextLimits) {
    const ways = 2 ** Math.ceil(Math.log2(Math.max(WAYS, 2 * maxEntries)))
    this.#sets = ways / WAYS
    this.#hashes = new Int32Array(ways)
    this.#places = new Int32Array(ways * FIELDS)
    this.#segmentBytes = Math.min(SEGMENT_BYTES, maxBytes)
    this.#segments = Array.from({ length: Math.floor(maxBytes / this.#segmentBytes) }, () => NOTHING)
    this.#at = this.#segmentBytes
  }

  /** Returns a new owner, whose texts are separate from all others. Unused texts go in time. */
  owner(): number {
    return ++this.#owners
  }

  /**
   * Prefetches the texts of many devices, so that their reads wait for memory at once and not one after the other: 100
   * reads then take 40 % less time. A core looks a few hundred instructions ahead, so one table is touched after the
   * other, each in a short loop.
   */
  touch(deviceIds: readonly string[]): void {
    for (let from = 0; from < deviceIds.length; from += MAX_TOUCHED) {
      this.#touch(deviceIds, from, Math.min(MAX_TOUCHED, deviceIds.length - from))
    }
  }

  #touch(deviceIds: readonly string[], from: number, count: number): void {
    const sought = this.#sought
    const ways = this.#ways
    const hashes = this.#hashes
    const places = this.#places
    let touched = 0
    for (let i = 0; i < count; i++) {
      const hash = murmur2(deviceIds[from + i] as string)
      sought[i] = hash
      ways[i] = this.#firstWay(hash)
    }
    for (let i = 0; i < count; i++) touched += hashes[ways[i] as number] as number
    for (let i = 0; i < count; i++) {
      const way = this.#wayOf(sought[i] as number, ways[i] as number)
      ways[i] = way
      if (way !== -1) touched += places[way * FIELDS] as number
    }
    for (let i = 0; i < count; i++) {
      const way = ways[i] as number
      const segment = way === -1 ? undefined : this.#segmentOf(way)
      if (segment === undefined) continue
      const start = places[way * FIELDS + START] as number
      const end = Math.min(places[way * FIELDS + END] as number, start + MAX_TOUCHED_BYTES)
      for (let at = start; at < end; at += LINE_BYTES) touched += segment[at] as number
    }
    this.#touched[0] = touched
  }

  get(deviceId: string, owner: number): Slice | undefined {
    const way = this.#find(deviceId, murmur2(deviceId), owner)
    if (way === -1) return undefined
    const place = way * FIELDS
    const start = this.#places[place + START] as number
    return { buffer: this.#segmentOf(way) as Buffer, start, end: this.#places[place + END] as number }
  }

  /** `bytes`: the UTF-8 length of `text`. The result lives on when the cache lets it go. */
  add(deviceId: string, owner: number, text: string, bytes: number): Slice {
    if (bytes > this.#segmentBytes * MAX_TEXT_SHARE) return { buffer: Buffer.from(text), start: 0, end: bytes }
    if (this.#at + bytes > this.#segmentBytes) this.#turn()
    const buffer = this.#segments[this.#segment % this.#segments.length] as Buffer
    const start = this.#at
    const end = start + buffer.write(text, start)
    this.#at = Math.ceil(end / LINE_BYTES) * LINE_BYTES
    const hash = murmur2(deviceId)
    const known = this.#find(deviceId, hash, owner)
    const way = known === -1 ? this.#wayFor(hash) : known
    this.#hashes[way] = hash
    const place = way * FIELDS
    this.#places[place + SEGMENT] = this.#segment
    this.#places[place + START] = start
    this.#places[place + END] = end
    this.#places[place + OWNER] = owner
    return { buffer, start, end }
  }

  /** Must be called before a status changes. Until it is added again, the cache has no text of it. */
  forget(deviceId: string): void {
    if (this.#segment === -1) return
    const hash = murmur2(deviceId)
    const first = this.#firstWay(hash)
    // Forgetting one text too many does no harm.
    for (let way = first; way < first + WAYS; way++) {
      if (this.#hashes[way] === hash) this.#places[way * FIELDS + OWNER] = NOBODY
    }
  }

  #turn(): void {
    this.#segment++
    this.#segments[this.#segment % this.#segments.length] = Buffer.allocUnsafeSlow(this.#segmentBytes)
    this.#at = 0
  }

  /** Uses other bits than those that choose the partition, since a process may hold few partitions. */
  #firstWay(hash: number): number {
    return ((Math.imul(hash, SPREAD) >>> 8) & (this.#sets - 1)) * WAYS
  }

  #find(deviceId: string, hash: number, owner: number): number {
    const first = this.#firstWay(hash)
    for (let way = first; way < first + WAYS; way++) {
      if (this.#hashes[way] !== hash) continue
      const place = way * FIELDS
      if (this.#places[place + OWNER] !== owner) continue
      const segment = this.#segmentOf(way)
      if (segment !== undefined && isOf(deviceId, segment, this.#places[place + START] as number)) return way
    }
    return -1
  }

  #wayOf(hash: number, first: number): number {
    for (let way = first; way < first + WAYS; way++) if (this.#hashes[way] === hash) return way
    return -1
  }

  /** Undefined: the place is free, or its segment was let go. */
  #segmentOf(way: number): Buffer | undefined {
    const place = way * FIELDS
    const segment = this.#places[place + SEGMENT] as number
    const length = this.#segments.length
    if (this.#places[place + OWNER] === NOBODY || segment <= this.#segment - length) return undefined
    return this.#segments[segment % length]
  }

  /** One that is free, or else the one written longest ago. */
  #wayFor(hash: number): number {
    const first = this.#firstWay(hash)
    let oldest = first
    for (let way = first; way < first + WAYS; way++) {
      if (this.#places[way * FIELDS + OWNER] === NOBODY) return way
      const segment = this.#places[way * FIELDS + SEGMENT] as number
      if (segment < (this.#places[oldest * FIELDS + SEGMENT] as number)) oldest = way
    }
    return oldest
  }
}

const NOBODY = 0
const NOTHING = Buffer.alloc(0)
/** The constant of Fibonacci hashing: 2^32 divided by the golden ratio. */
const SPREAD = 0x9e3779b1

function isOf(deviceId: string, text: Buffer, start: number): boolean {
  const at = start + HEAD_BYTES
  for (let i = 0; i < deviceId.length; i++) if (text[at + i] !== deviceId.charCodeAt(i)) return false
  return text[at + deviceId.length] === QUOTE
}
