import type { Freshness } from '../../processor/contract/query.ts'

export interface Fresh {
  readonly freshness: Freshness
}

/** Marks an answer as a standby's, whatever the copy takes itself for. */
export function ofStandby<T extends Fresh>(answer: T): T {
  const { freshness } = answer
  return freshness.servedBy === 'owner' ? { ...answer, freshness: { ...freshness, servedBy: 'standby' } } : answer
}

/** Compares the input first: changelog positions of an aborted commit mean nothing. */
export function isFurther(a: Freshness, b: Freshness): boolean {
  return a.offset === b.offset ? a.changelog > b.changelog : a.offset > b.offset
}

/**
 * How long a standby's answer counts, ms. An owner that lacks its commit finishes it or loses its claim much sooner.
 */
const COUNTS_MS = 60_000

type Reached = Pick<Freshness, 'partition' | 'offset' | 'changelog'>

/**
 * How far the answers of standbys went that this process gave, by partition. An owner behind them lacks a commit or was
 * replaced without knowing, and readers of this process must not see a device go back. Both positions count: a standby
 * that has read part of a commit is further by the changelog alone; and where Kafka lost an acknowledged commit, the
 * next owner is as far by the changelog but not by the input.
 */
export class MonotonicReads {
  readonly #now: () => number
  /** Ends of input and changelog, and when they were shown. */
  readonly #input: Float64Array
  readonly #changelog: Float64Array
  readonly #at: Float64Array

  /** `now` is monotonic, ms. */
  constructor(partitions: number, now: () => number) {
    this.#now = now
    this.#input = new Float64Array(partitions)
    this.#changelog = new Float64Array(partitions)
    this.#at = new Float64Array(partitions).fill(Number.NEGATIVE_INFINITY)
  }

  /**
   * Showing the same position again does not prolong it. A standby also counts the marker that ends a transaction,
   * which its owner has not read, so the owner of a resting partition would seem behind for as long as somebody reads.
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

  /** Whether more was shown than a copy at this position holds. */
  exceeds({ partition, offset, changelog }: Reached): boolean {
    const isBehind = offset < (this.#input[partition] as number) || changelog < (this.#changelog[partition] as number)
    return isBehind && this.#counts(partition)
  }

  #counts(partition: number): boolean {
    return this.#now() - (this.#at[partition] as number) < COUNTS_MS
  }
}

/** Time for one copy's answer, ms. */
export const ANSWER_WITHIN_MS = 1_000
