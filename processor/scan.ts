import type { StateStore } from './store/store.ts'

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
  /** Undefined at the end. */
  next(): Promise<readonly Entry[] | undefined>
  /** Begins to read what `next` will give. */
  readAhead(): void
}

/** One read that may be begun before it is asked for. A failure is told to who asks. */
export class ReadAhead<T> {
  readonly #read: () => Promise<T>
  #begun: Promise<T> | undefined

  constructor(read: () => Promise<T>) {
    this.#read = read
  }

  begin(): void {
    if (this.#begun !== undefined) return
    this.#begun = this.#read()
    this.#begun.catch(() => undefined)
  }

  take(): Promise<T> {
    const begun = this.#begun ?? this.#read()
    this.#begun = undefined
    return begun
  }
}

/** Reads the devices of some ranges, in the order of their ids, chunk by chunk; the next while one is looked at. */
export class Scan implements Source {
  readonly #store: Pick<StateStore, 'between'>
  readonly #backwards: boolean
  readonly #ranges: IdRange[]
  readonly #maxRead: number
  #size: number
  readonly #ahead = new ReadAhead(() => this.#read())

  /**
   * `ranges`: ascending, apart. `maxRead`: entries of one read; there are fewer when they are large. `first`: of the first
   * read.
   */
  constructor(
    store: Pick<StateStore, 'between'>,
    ranges: readonly IdRange[],
    {
      backwards = false,
      maxRead,
      first = FIRST_READ,
    }: { readonly backwards?: boolean; readonly maxRead: number; readonly first?: number | undefined },
  ) {
    this.#store = store
    this.#backwards = backwards
    this.#ranges = backwards ? ranges.toReversed() : [...ranges]
    this.#maxRead = maxRead
    this.#size = Math.min(first, maxRead)
  }

  async next(): Promise<readonly Entry[] | undefined> {
    for (;;) {
      const range = this.#ranges[0]
      if (range === undefined) return undefined
      const size = this.#size
      const entries = await this.#ahead.take()
      const last = entries.at(-1)
      if (last === undefined) {
        this.#ranges.shift()
        continue
      }
      const rest = this.#backwards ? { from: range.from, to: last[0] } : { from: `${last[0]}\0`, to: range.to }
      if (entries.length < size) this.#ranges.shift()
      else this.#ranges[0] = rest
      let bytes = 0
      for (const [, status] of entries) bytes += status.byteLength
      this.#size = Math.max(1, Math.min(this.#maxRead, Math.floor((READ_BYTES * entries.length) / bytes)))
      return entries
    }
  }

  readAhead(): void {
    if (this.#ranges.length > 0) this.#ahead.begin()
  }

  #read(): Promise<Entry[]> {
    const { from, to } = this.#ranges[0] as IdRange
    return this.#store.between(from, to, this.#size, this.#backwards)
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
