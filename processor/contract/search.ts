import type { Field } from './field.ts'
import type { Order, SortKey } from './order.ts'
import type { Freshness } from './query.ts'
import type { Offset } from './record.ts'
import type { Query } from './search-query.ts'
import type { SummaryJson } from './summary.ts'

/** Where in an order a page ended: after the device of that key and id. */
export interface Place {
  readonly key: SortKey
  readonly deviceId: string
}

/** Which devices of a partition are meant. */
export interface Selection {
  readonly query: Query
  /** Only ids that begin with one of these: ascending, none of them the beginning of another. Undefined: all. */
  readonly within: readonly string[] | undefined
}

/**
 * What is asked of one partition. A copy works on it for a bounded time and answers with what it has found, and where to
 * go on (`from`): whoever asks puts the slices together, and may go on at another copy. `reached`: the position in the
 * changelog that an earlier slice held; a copy that holds it does not answer from an older state.
 */
export interface SearchQuestion extends Selection {
  readonly partition: number
  readonly order: Order
  readonly after: Place | undefined
  readonly from: string | undefined
  readonly reached?: Offset | undefined
  readonly limit: number
}

export interface SearchSlice {
  /** Those found, in order, after `after`; the first `limit` of what was examined. */
  readonly items: readonly { readonly deviceId: string; readonly status: Uint8Array }[]
  /** What is found further on comes after all that was found until now. */
  readonly settled: boolean
  /** More was found after the last of `items`, which is not in them: ask for it by `after`. */
  readonly more: boolean
  /** Where to go on; undefined: all has been examined. */
  readonly next: string | undefined
  readonly freshness: Freshness
}

export interface SummaryQuestion extends Selection {
  readonly partition: number
  readonly by: readonly Field[]
  readonly metrics: readonly Field[]
  readonly from: string | undefined
  readonly reached?: Offset | undefined
}

export interface SummarySlice {
  /** Of what was examined in this slice. */
  readonly summary: SummaryJson
  readonly next: string | undefined
  readonly freshness: Freshness
}

/** Most fields in `by`, and most metrics, of one summary. */
export const MAX_SUMMARY_FIELDS = 4
