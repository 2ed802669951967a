/**
 * For how long an answer of a standby counts, ms: an owner that is behind it ends the commit that it lacks, or loses its claim,
 * in much less.
 */
const COUNTS_MS = 60_000

/**
 * How far the answers of standbys went that were given, by partition. An owner that is behind them lacks a commit, or has been
 * replaced, and does not know it: nobody who reads through this process is to see a device go back for that.
 */
export class Shown {
  readonly #now: () => number
  /** Ends of the changelog, and when they were shown. */
  readonly #changelog: Float64Array
  readonly #at: Float64Array

  /** `now`: of a clock that never goes back, ms. */
  constructor(partitions: number, now: () => number) {
    this.#now = now
    this.#changelog = new Float64Array(partitions).fill(-1)
    this.#at = new Float64Array(partitions)
  }

  /**
   * As much shown once more does not count for longer: a standby also counts the marker that ends a transaction, which its
   * owner has not read, so the owner of a partition that rests would be behind for as long as somebody reads.
   */
  note(partition: number, changelog: number): void {
    if (changelog === this.#changelog[partition] ? this.#counts(partition) : this.exceeds(partition, changelog)) return
    this.#changelog[partition] = changelog
    this.#at[partition] = this.#now()
  }

  /** More was shown than what a copy holds that has reached `changelog`. */
  exceeds(partition: number, changelog: number): boolean {
    return changelog < (this.#changelog[partition] as number) && this.#counts(partition)
  }

  #counts(partition: number): boolean {
    return this.#now() - (this.#at[partition] as number) < COUNTS_MS
  }
}
