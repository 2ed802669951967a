import type { Limiter } from '../runtime/limiter.ts'
import { ReadAhead } from '../runtime/read-ahead.ts'
import type { EntryCursor, StateStore, Way } from '../store/store.ts'

/** Device ids from `from` up to, not with, `to`. */
export interface IdRange {
  readonly from: string
  readonly to: string
}

/** Device ids have no character over `z`. */
export const LAST = '\x7f'

export type Entry = readonly [deviceId: string, status: Uint8Array]

/** Entries of the first read, when nobody knows better. */
const FIRST_READ = 64
/** Aim of one read, bytes of statuses. */
export const READ_BYTES = 1024 * 1024

/** Gives devices in one order, chunk by chunk. */
export interface Source {
  /** So many devices are examined at most; undefined: all. */
  readonly most?: number | undefined
  /** Undefined at the end. */
  next(): Promise<readonly Entry[] | undefined>
  /** Begins to read what `next` will give. */
  readAhead(): void
  close(): Promise<void>
}

export interface ScanOptions {
  readonly backwards?: boolean
  /** Entries of one read; there are fewer when they are large. */
  readonly maxRead: number
  /** Entries of the first read. */
  readonly first?: number | undefined
  /** As Source has it. */
  readonly most?: number | undefined
  /** So many entries are asked for in all, unless some do not fit. */
  readonly limit?: number | undefined
  /** Of all scans of the event loop: what a read brings is made into objects in one go. */
  readonly reading: Limiter
}

/** Reads the devices of some ranges, in the order of their ids, chunk by chunk; the next while one is looked at. */
export class Scan implements Source {
  readonly #store: Pick<StateStore, 'between'>
  readonly #ranges: IdRange[]
  readonly #way: Way
  readonly #maxRead: number
  readonly #reading: Limiter
  readonly most: number | undefined
  #cursor: EntryCursor | undefined
  #closed = false
  #size: number
  readonly #ahead = new ReadAhead(() => this.#read())

  /** `ranges`: ascending, apart. */
  constructor(
    store: Pick<StateStore, 'between'>,
    ranges: readonly IdRange[],
    { backwards = false, maxRead, first = FIRST_READ, most, limit = most, reading }: ScanOptions,
  ) {
    this.#store = store
    this.#ranges = backwards ? ranges.toReversed() : [...ranges]
    this.#way = { backwards, limit }
    this.#maxRead = maxRead
    this.#reading = reading
    this.most = most
    this.#size = Math.min(first, maxRead)
  }

  async next(): Promise<readonly Entry[] | undefined> {
    const entries = await this.#ahead.take()
    if (entries === undefined) return undefined
    let bytes = 0
    for (const [, status] of entries) bytes += status.byteLength
    this.#size = Math.max(1, Math.min(this.#maxRead, Math.floor((READ_BYTES * entries.length) / bytes)))
    return entries
  }

  readAhead(): void {
    if (this.#ranges.length > 0) this.#ahead.begin()
  }

  async #read(): Promise<Entry[] | undefined> {
    for (;;) {
      const range = this.#ranges[0]
      if (range === undefined || this.#closed) return undefined
      const cursor = (this.#cursor ??= this.#store.between(range.from, range.to, this.#way))
      const entries = await this.#reading.run(() => cursor.next(this.#size))
      if (entries.length > 0) return entries
      this.#cursor = undefined
      this.#ranges.shift()
      await cursor.close()
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#cursor?.close()
  }
}

/** The parts of `ranges` that come after `deviceId` in the direction. */
export function beyond(ranges: readonly IdRange[], deviceId: string, backwards: boolean): IdRange[] {
  const bound = backwards ? deviceId : `${deviceId}\0`
  return ranges
    .map(({ from, to }) =>
      backwards ? { from, to: bound < to ? bound : to } : { from: bound > from ? bound : from, to },
    )
    .filter(({ from, to }) => from < to)
}

export function intersect(a: readonly IdRange[], b: IdRange): IdRange[] {
  return a
    .map(({ from, to }) => ({ from: from > b.from ? from : b.from, to: to < b.to ? to : b.to }))
    .filter(({ from, to }) => from < to)
}
