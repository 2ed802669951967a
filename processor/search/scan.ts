import type { Limiter } from '../runtime/limiter.ts'
import { ReadAhead } from '../runtime/pause.ts'
import type { EntryCursor, StateStore, Way } from '../store/store.ts'

/** Device ids from `from` up to, not with, `to`. */
export interface IdRange {
  readonly from: string
  readonly to: string
}

/** Greater than every device id, whose last character is `z`. */
export const LAST = '\x7f'

export type Entry = readonly [deviceId: string, status: Uint8Array]

const FIRST_READ = 64
/** Target size of one read, bytes of statuses. */
export const READ_BYTES = 1024 * 1024

/** Where a search gets its candidates, chunk by chunk, in one order. */
export interface Source {
  /** The most devices to examine; undefined: all. */
  readonly most?: number | undefined
  /** Undefined at the end. */
  next(): Promise<readonly Entry[] | undefined>
  /** Begins to read the next chunk. */
  readAhead(): void
  close(): Promise<void>
}

export interface ScanOptions {
  readonly backwards?: boolean
  /** Entries of one read; there are fewer when they are large. */
  readonly maxRead: number
  /** Entries of the first read. */
  readonly first?: number | undefined
  /** See `Source`. */
  readonly most?: number | undefined
  /** Entries that are expected to be enough. */
  readonly limit?: number | undefined
  /** Shared by all scans: a read makes its objects in one go, and all partitions at once would hold the event loop. */
  readonly reading: Limiter
}

/** The full scan: reads the devices of ranges of ids from the store, in order, one chunk ahead of the matcher. */
export class FullScan implements Source {
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

/** The parts of `ranges` after `deviceId` in the direction of the scan. */
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
