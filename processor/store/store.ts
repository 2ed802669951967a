import type { Offset } from '../contract/record.ts'
import type { Move } from './index-entries.ts'
import type { ReadCounts } from './partition-index.ts'

/** The positions a store has reached: all of the changelog before `changelog`, which is all effects of the input before `input`. */
export interface Checkpoint {
  readonly input: Offset
  readonly changelog: Offset
  /** It has held all of the changelog once: until then, devices are missing that it will hold. */
  readonly whole: boolean
  /** Epoch ms at which it last held all of the changelog, or began to read it from the start. */
  readonly since: number
}

/** Entries of an index from `from` up to, not with, `to`; each is followed by a zero and the id of a device. */
export interface EntryRange {
  readonly from: string
  readonly to: string
}

/** What `contract/index-entries.ts` makes of the statuses of one partition, and of no others. */
export interface StoreIndex {
  readonly counts: ReadCounts

  /** The devices of up to `limit` entries of each range, in the byte order of the entries, or backwards; of one moment. */
  read(ranges: readonly EntryRange[], limit: number, backwards: boolean): Promise<string[][]>
}

export interface Way {
  readonly backwards: boolean
  /** So many are asked for in all; undefined: it is not known. */
  readonly limit?: number | undefined
}

/** Reads on from where it stands. To be closed. */
export interface EntryCursor {
  /** Up to `size` entries; none at the end. */
  next(size: number): Promise<[key: string, value: Uint8Array][]>
  close(): Promise<void>
}

/** The store of one partition: bytes in, bytes out. Codecs belong to the caller. */
export interface StateStore extends AsyncDisposable {
  /** Undefined: empty, never written. */
  readonly checkpoint: Checkpoint | undefined

  /** Raised by each wipe before it takes anything away: what was read while it was raised is of no one state. */
  readonly generation: number

  /** Keys held; undefined after writes whose `added` was not given, until `recount`. */
  readonly count: number | undefined

  /** One batched read; the values in the order of the keys, undefined where absent. */
  getMany(keys: readonly string[]): Promise<(Uint8Array | undefined)[]>

  /**
   * Up to `limit` entries with key > `after` (all when undefined), in the byte order of the keys. The one with which the
   * values have `maxBytes` or more is the last.
   */
  range(after: string | undefined, limit: number, maxBytes?: number): Promise<[key: string, value: Uint8Array][]>

  /** Entries with `from` <= key < `to` as they are now, in the byte order of the keys, or backwards. */
  between(from: string, to: string, way: Way): EntryCursor

  /** Undefined while there is none that can be relied on. */
  readonly index: StoreIndex | undefined

  /**
   * The only way in for statuses and positions: data, indexes and checkpoint in one atomic batch; a null value deletes.
   * `added`: keys that came to be less keys that went, when the caller knows. `moves`: of all devices written for which
   * something indexed changes, from what is stored to what is written; a store that is not told reads what it overwrites.
   * While it is not whole it keeps no indexes.
   */
  commit(
    writes: ReadonlyMap<string, Uint8Array | null>,
    reached: Checkpoint,
    added?: number,
    moves?: readonly Move[],
  ): Promise<void>

  /** The changelog ended at `end` at `at`, epoch ms: a copy that is whole and there held all of it then. */
  confirm(end: Offset, at: number): Promise<void>

  /** Counts the keys by a scan, in slices that leave the event loop free. Not while a commit is under way. */
  recount(): Promise<number>

  /** Back to empty, without a checkpoint. When it rejects, the next commit makes an end of it first. */
  wipe(): Promise<void>
}

/** What a search needs of a store. */
export type Searched = Pick<StateStore, 'checkpoint' | 'generation' | 'between' | 'getMany' | 'count' | 'index'>
