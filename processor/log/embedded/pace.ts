import type { EmbeddedPartition } from './partition.ts'
import type { ClaimPosition } from './writer.ts'

/** How long one append may be held, ms: also when processing stands still, appends go on. */
const MAX_HOLD_MS = 200
/** A partition without a commit for so long, ms, is not being processed, and nobody waits for it. */
const STALE_MS = 1000

/**
 * Appends and processing share one event loop, and sockets would have the most of it: acknowledgements of telemetry
 * are held while more than `maxBacklog` records wait to be processed. So a burst ends up in the senders, as
 * back-pressure, and not in answers that are old; and what is processed is still in memory.
 */
export class Pace {
  readonly #partitions: readonly Pick<EmbeddedPartition, 'end'>[]
  readonly #positions: readonly ClaimPosition[]
  readonly #maxBacklog: number
  readonly #now: () => number
  /** When, on the clock of `now`, each partition was committed last. */
  readonly #committedAt: number[]
  /** First come, first served: appends resolve in the order of their calls. Bounded by the appends under way. */
  #held: { readonly since: number; readonly resolve: () => void }[] = []
  #timer: NodeJS.Timeout | undefined

  /** `now`: ms, of a clock that nobody sets. */
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

  /** Undefined when nothing is to be waited for. */
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
