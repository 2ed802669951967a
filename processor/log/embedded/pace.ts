import type { EmbeddedPartition } from './partition.ts'
import type { ClaimPosition } from './writer.ts'

/** A partition without a commit for this many milliseconds is not being processed, and nobody waits for it. */
const STALE_MS = 2_000

/**
 * Appends and processing share one event loop, and sockets would take most of it. So ingest reads nothing while more than
 * `maxBacklog` records wait to be processed. What is acknowledged can then be read soon, and records are processed while
 * they are still in memory.
 */
export class Pace {
  readonly #partitions: readonly Pick<EmbeddedPartition, 'end'>[]
  readonly #positions: readonly ClaimPosition[]
  readonly #maxBacklog: number
  readonly #now: () => number
  /** The last commit of each partition: its time, on the clock of `now`, and the input offset. */
  readonly #committedAt: number[]
  readonly #inputs: number[]
  /** The records that may wait now. It is larger after a stop: see `committed`. */
  #allowed: number
  #relief: PromiseWithResolvers<void> | undefined
  #timer: NodeJS.Timeout | undefined

  /** `now` gives milliseconds of a clock that nobody sets. */
  constructor(
    partitions: readonly Pick<EmbeddedPartition, 'end'>[],
    positions: readonly ClaimPosition[],
    maxBacklog: number,
    now: () => number,
  ) {
    this.#partitions = partitions
    this.#positions = positions
    this.#maxBacklog = maxBacklog
    this.#allowed = maxBacklog
    this.#now = now
    this.#committedAt = partitions.map(() => Number.NEGATIVE_INFINITY)
    this.#inputs = partitions.map(() => 0)
  }

  /** Resolves when enough of the backlog is processed; undefined when no more waits than may. */
  get relief(): Promise<void> | undefined {
    if (this.#relief === undefined) {
      if (!this.#behind) return undefined
      this.#relief = Promise.withResolvers()
      this.#timer = setInterval(() => this.#relieve(), STALE_MS)
    }
    return this.#relief.promise
  }

  /**
   * When a partition is taken up, or goes on after it stood still, what waits there is worked off beside new records: for
   * each two records that are processed, one more is let in.
   */
  committed(partition: number): void {
    const { input } = this.#positions[partition] as ClaimPosition
    const wasStale = this.#isStale(partition)
    this.#committedAt[partition] = this.#now()
    if (wasStale) this.#allowed += this.#backlogOf(partition)
    else this.#allowed -= (input - (this.#inputs[partition] as number)) / 2
    this.#allowed = Math.max(this.#maxBacklog, Math.min(this.#allowed, this.#backlog + this.#maxBacklog))
    this.#inputs[partition] = input
    this.#relieve()
  }

  close(): void {
    this.#committedAt.fill(Number.NEGATIVE_INFINITY)
    this.#relieve()
  }

  get #behind(): boolean {
    return this.#backlog > this.#allowed
  }

  get #backlog(): number {
    let backlog = 0
    for (const index of this.#partitions.keys()) if (!this.#isStale(index)) backlog += this.#backlogOf(index)
    return backlog
  }

  #isStale(partition: number): boolean {
    return this.#now() - (this.#committedAt[partition] as number) > STALE_MS
  }

  #backlogOf(partition: number): number {
    const { end } = this.#partitions[partition] as Pick<EmbeddedPartition, 'end'>
    return end - (this.#positions[partition] as ClaimPosition).input
  }

  #relieve(): void {
    if (this.#relief === undefined || this.#behind) return
    clearInterval(this.#timer)
    this.#relief.resolve()
    this.#relief = undefined
  }
}
