import type { Freshness } from '../../processor/contract/query.ts'

/** Whatever a copy answers says how fresh it is. */
export interface Fresh {
  readonly freshness: Freshness
}

/** The same answer, marked as that of a standby, whatever the copy takes itself for. */
export function ofStandby<T extends Fresh>(answer: T): T {
  const { freshness } = answer
  return freshness.servedBy === 'owner' ? { ...answer, freshness: { ...freshness, servedBy: 'standby' } } : answer
}

/** By the input first: changelog positions of what was aborted tell nothing. */
export function isFurther(a: Freshness, b: Freshness): boolean {
  return a.offset === b.offset ? a.changelog > b.changelog : a.offset > b.offset
}

/**
 * For how long an answer of a standby counts, ms: an owner that is behind it ends the commit that it lacks, or loses its claim,
 * in much less.
 */
const COUNTS_MS = 60_000

type Reached = Pick<Freshness, 'partition' | 'offset' | 'changelog'>

/**
 * How far the answers of standbys went that were given, by partition. An owner that is behind them lacks a commit, or has been
 * replaced, and does not know it: nobody who reads through this process is to see a device go back for that.
 *
 * By both positions: a standby that has read a commit in part is further by the changelog alone; and where Kafka lost a
 * commit that it had acknowledged, the next owner is as far by the changelog, of which it has read more, and not by the input.
 */
export class MonotonicReads {
  readonly #now: () => number
  /** Ends of the input and of the changelog, and when they were shown. */
  readonly #input: Float64Array
  readonly #changelog: Float64Array
  readonly #at: Float64Array

  /** `now`: of a clock that never goes back, ms. */
  constructor(partitions: number, now: () => number) {
    this.#now = now
    this.#input = new Float64Array(partitions)
    this.#changelog = new Float64Array(partitions)
    this.#at = new Float64Array(partitions).fill(Number.NEGATIVE_INFINITY)
  }

  /**
   * As much shown once more does not count for longer: a standby also counts the marker that ends a transaction, which its
   * owner has not read, so the owner of a partition that rests would be behind for as long as somebody reads.
   */
  note({ partition, offset, changelog }: Reached): void {
    const counts = this.#counts(partition)
    const input = counts ? (this.#input[partition] as number) : 0
    const before = counts ? (this.#changelog[partition] as number) : 0
    if (counts && offset <= input && changelog <= before) return
    this.#input[partition] = Math.max(offset, input)
    this.#changelog[partition] = Math.max(changelog, before)
    this.#at[partition] = this.#now()
  }

  /** More was shown than what a copy holds that has reached so much. */
  exceeds({ partition, offset, changelog }: Reached): boolean {
    const isBehind = offset < (this.#input[partition] as number) || changelog < (this.#changelog[partition] as number)
    return isBehind && this.#counts(partition)
  }

  #counts(partition: number): boolean {
    return this.#now() - (this.#at[partition] as number) < COUNTS_MS
  }
}

/** So long, ms, one copy has for an answer. */
export const ANSWER_WITHIN_MS = 1_000
