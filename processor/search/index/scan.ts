import { ReadAhead } from '../../runtime/pause.ts'
import type { EntryRange, StateStore, StoreIndex } from '../../store/store.ts'
import { type Entry, type IdRange, READ_BYTES, type Source } from '../scan.ts'
import { MAX_GATHERED } from './plan.ts'

/** Candidates whose statuses are read at once, at first and at most. */
const FIRST_READ = 64
const MAX_READ = 512

/** Ids of candidates in the order of the scan, each once. */
interface Candidates {
  /** Up to `size`, or some more; undefined at the end. */
  next(size: number): Promise<readonly string[] | undefined>
}

/** The index scan: reads the candidates that the index names, in the order of their ids, one chunk ahead of the matcher. */
export class IndexScan implements Source {
  readonly #store: Pick<StateStore, 'getMany'>
  readonly #candidates: Candidates
  readonly #maxRead: number
  #size: number
  readonly #ahead = new ReadAhead(() => this.#read())

  /** `first`: candidates of the first read, if so many are likely to be enough. */
  constructor(
    store: Pick<StateStore, 'getMany'>,
    candidates: Candidates,
    { maxRead, first = FIRST_READ }: { readonly maxRead: number; readonly first: number | undefined },
  ) {
    this.#store = store
    this.#candidates = candidates
    this.#maxRead = Math.min(maxRead, MAX_READ)
    this.#size = Math.min(first, this.#maxRead)
  }

  /** An empty chunk when all its candidates are gone meanwhile; undefined at the end. */
  next(): Promise<readonly Entry[] | undefined> {
    return this.#ahead.take()
  }

  readAhead(): void {
    this.#ahead.begin()
  }

  async close(): Promise<void> {}

  async #read(): Promise<Entry[] | undefined> {
    const ids = await this.#candidates.next(this.#size)
    if (ids === undefined) return undefined
    const statuses = await this.#store.getMany(ids)
    const entries: Entry[] = []
    let bytes = 1
    for (const [i, status] of statuses.entries()) {
      if (status === undefined) continue
      entries.push([ids[i] as string, status])
      bytes += status.byteLength
    }
    const fitting = Math.floor((READ_BYTES * Math.max(1, entries.length)) / bytes)
    this.#size = Math.max(1, Math.min(this.#size * 2, this.#maxRead, fitting))
    return entries
  }
}

/** Merges the posting lists of a few index entries, each in the order of device ids, as far as they are needed. */
export class PostingsMerge implements Candidates {
  readonly #index: StoreIndex
  readonly #entries: readonly string[]
  readonly #backwards: boolean
  readonly #ranges: IdRange[]

  /** `ranges`: ascending, apart. */
  constructor(index: StoreIndex, entries: readonly string[], ranges: readonly IdRange[], backwards: boolean) {
    this.#index = index
    this.#entries = entries
    this.#backwards = backwards
    this.#ranges = backwards ? ranges.toReversed() : [...ranges]
  }

  async next(size: number): Promise<readonly string[] | undefined> {
    const range = this.#ranges[0]
    if (range === undefined || this.#entries.length === 0) return undefined
    const { from, to } = range
    const wanted = this.#entries.map((entry) => ({ from: `${entry}\0${from}`, to: `${entry}\0${to}` }))
    const lists = await this.#index.read(wanted, size, this.#backwards)
    // A list that has more than was read of it bounds the merge.
    let bound: string | undefined
    for (const list of lists) {
      const last = list.length < size ? undefined : (list.at(-1) as string)
      if (last !== undefined && (bound === undefined || this.#isBefore(last, bound))) bound = last
    }
    if (bound === undefined) this.#ranges.shift()
    else this.#ranges[0] = this.#backwards ? { from, to: bound } : { from: `${bound}\0`, to }
    return inOrder(lists.flat(), this.#backwards).filter((id) => bound === undefined || !this.#isBefore(bound, id))
  }

  #isBefore(a: string, b: string): boolean {
    return this.#backwards ? a > b : a < b
  }
}

/** Collects and sorts the posting lists of whole ranges of entries, as a bitmap scan does, before the first id is given. */
export class CollectedPostings implements Candidates {
  readonly #ids: readonly string[]
  #given = 0

  private constructor(ids: readonly string[]) {
    this.#ids = ids
  }

  /** Undefined when there are more than MAX_GATHERED. */
  static async from(
    index: StoreIndex,
    entries: readonly EntryRange[],
    ranges: readonly IdRange[],
    backwards: boolean,
  ): Promise<CollectedPostings | undefined> {
    const lists = await index.read(entries, MAX_GATHERED + 1, false)
    let found = 0
    for (const list of lists) found += list.length
    if (found > MAX_GATHERED) return undefined
    const ids = lists.flat().filter((id) => ranges.some(({ from, to }) => id >= from && id < to))
    return new CollectedPostings(inOrder(ids, backwards))
  }

  async next(size: number): Promise<readonly string[] | undefined> {
    if (this.#given === this.#ids.length) return undefined
    const ids = this.#ids.slice(this.#given, this.#given + size)
    this.#given += ids.length
    return ids
  }
}

/** Ids are ASCII: code units and bytes have one order. */
function inOrder(ids: string[], backwards: boolean): string[] {
  const sorted = Array.from(new Set(ids)).sort()
  return backwards ? sorted.toReversed() : sorted
}
