import type { Offset } from '../contract/record.ts'
import type { Move } from './index-entries.ts'
import type { ReadCounts } from './partition-index.ts'

/**
 * The positions that a store has reached: everything in the changelog before `changelog`, which is the effect of
 * everything in the input before `input`.
 */
export interface Checkpoint {
  readonly input: Offset
  readonly changelog: Offset
  /** The store has held the whole changelog once. Until then devices are missing. */
  readonly whole: boolean
  /** Epoch ms at which it last held the whole changelog, or began to read it from the start. */
  readonly since: number
}

/** Index entries from `from` up to but not including `to`. A zero and a device id follow each. */
export interface EntryRange {
  readonly from: string
  readonly to: string
}

/** The indexes of one partition, see index-entries.ts. */
export interface StoreIndex {
  readonly counts: ReadCounts

  /**
   * Reads the devices of up to `limit` entries of each range, in the byte order of the entries or backwards, all at one
   * moment.
   */
  read(ranges: readonly EntryRange[], limit: number, backwards: boolean): Promise<string[][]>
}

export interface Way {
  readonly backwards: boolean
  /** How many entries will be read in all. Undefined: unknown. */
  readonly limit?: number | undefined
}

/** Reads on from where it stands. It must be closed. */
export interface EntryCursor {
  /** Resolves with up to `size` entries; none at the end. */
  next(size: number): Promise<[key: string, value: Uint8Array][]>
  close(): Promise<void>
}

/** The store of one partition: bytes in, bytes out. Codecs belong to the caller. */
export interface StateStore extends AsyncDisposable {
  /** Undefined: the store was never written. */
  readonly checkpoint: Checkpoint | undefined

  /** Each wipe raises it before it removes anything. A read during which it rose mixes two states. */
  readonly generation: number

  /** Number of keys. Undefined after writes without `added`, until `recount`. */
  readonly count: number | undefined

  /** Reads in one batch. Resolves with the values in the order of the keys, undefined where absent. */
  getMany(keys: readonly string[]): Promise<(Uint8Array | undefined)[]>

  /**
   * Reads up to `limit` entries with key > `after` (all when undefined), in the byte order of the keys. The entry at
   * which the values reach `maxBytes` is the last.
   */
  range(after: string | undefined, limit: number, maxBytes?: number): Promise<[key: string, value: Uint8Array][]>

  /** Reads entries with `from` <= key < `to` as they are now, in the byte order of the keys or backwards. */
  between(from: string, to: string, way: Way): EntryCursor

  /** Undefined while there is no reliable index. */
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

  /** Notes that the changelog ended at `end` at `at`, epoch ms: a complete copy at that position held all of it. */
  confirm(end: Offset, at: number): Promise<void>

  /** Counts the keys by a scan, in slices that leave the event loop free. Not while a commit is under way. */
  recount(): Promise<number>

  /** Empties the store, without a checkpoint. After a rejection the next commit completes it. */
  wipe(): Promise<void>
}

export type Searched = Pick<StateStore, 'checkpoint' | 'generation' | 'between' | 'getMany' | 'count' | 'index'>
