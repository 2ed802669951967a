import type { EmbeddedPartition } from './partition.ts'
import type { ClaimPosition } from './writer.ts'

/** Milliseconds that one append may be held, so that appends go on when processing stands still. */
const MAX_HOLD_MS = 200
/** A partition without a commit for this many milliseconds is not being processed, and appends do not wait for it. */
const STALE_MS = 1000

/**
 * Appends and processing share one event loop, and sockets would take most of it. So acknowledgements of telemetry are
 * held while more than `maxBacklog` records wait to be processed. A burst then reaches the senders as back-pressure and
 * does not make answers stale, and records are processed while they are still in memory.
 */
export class Pace {
  readonly #partitions: readonly Pick<EmbeddedPartition, 'end'>[]
  readonly #positions: readonly ClaimPosition[]
  readonly #maxBacklog: number
  readonly #now: () => number
  /** Time of each partition's last commit, on the clock of `now`. */
  readonly #committedAt: number[]
  /** Appends resolve in the order of their calls. The appends under way bound this queue. */
  #held: { readonly since: number; readonly resolve: () => void }[] = []
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
    this.#now = now
    this.#committedAt = partitions.map(() => Number.NEGATIVE_INFINITY)
  }

  /** Returns undefined when the append need not wait. */
  hold(): Promise<void> | undefined {
    if (this.#held.length === 0 && this.#backlog() <= this.#maxBacklog) return undefined
    return new Promise((resolve) => {
      this.#held.push({ since: this.#now(), resolve })
      this.#timer ??= setTimeout(() => this.#expire(), MAX_HOLD_MS)
    })
  }

  committed(partition: number): void {
    this.#committedAt[partition] = this.#now()
    if (this.#held.length > 0 && this.#backlog() <= this.#maxBacklog) this.#release(this.#held.length)
  }

  close(): void {
    this.#release(this.#held.length)
  }

  #backlog(): number {
    const since = this.#now() - STALE_MS
    let backlog = 0
    for (const [index, partition] of this.#partitions.entries()) {
      const position = this.#positions[index]
      if (position !== undefined && (this.#committedAt[index] as number) >= since)
        backlog += partition.end - position.input
    }
    return backlog
  }

  #expire(): void {
    this.#timer = undefined
    const before = this.#now() - MAX_HOLD_MS
    const first = this.#held.findIndex(({ since }) => since > before)
    this.#release(first < 0 ? this.#held.length : first)
    const next = this.#held[0]
    if (next !== undefined) this.#timer = setTimeout(() => this.#expire(), Math.max(1, next.since - before))
  }

  #release(count: number): void {
    for (const { resolve } of this.#held.splice(0, count)) resolve()
    if (this.#held.length > 0) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}
