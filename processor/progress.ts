import type { Restore } from './contract/query.ts'
import type { Offset } from './log/log.ts'

/** Below this the rate is noise, ms. */
const MIN_ELAPSED_MS = 500

/** How far a copy is on its way through the changelog, and how fast it goes. */
export class Progress {
  readonly #now: () => number
  #from: Offset | undefined
  #began = 0
  #position: Offset = 0
  #end: Offset = 0

  /** `now`: ms, of a clock that nobody sets. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** The copy is at `position` of a changelog that ends at `end`. */
  reached(position: Offset, end: Offset): void {
    if (this.#from === undefined) {
      this.#from = position
      this.#began = this.#now()
    }
    this.#position = position
    this.#end = end
  }

  /** The changelog was found to end at `end`. */
  sighted(end: Offset): void {
    this.#end = Math.max(this.#end, end)
  }

  /** What follows is another way, from another position. */
  restart(): void {
    this.#from = undefined
  }

  /** Offsets to the end: records, and the gaps that compaction left. */
  get remaining(): number {
    return Math.max(0, this.#end - this.#position)
  }

  /** `etaSeconds` is undefined while the rate is not known. */
  get restore(): Restore {
    const elapsedMs = this.#now() - this.#began
    const passed = this.#position - (this.#from ?? this.#position)
    const rate = elapsedMs < MIN_ELAPSED_MS ? 0 : (passed / elapsedMs) * 1000
    const { remaining } = this
    return {
      remaining,
      recordsPerSecond: Math.round(rate),
      etaSeconds: rate > 0 ? Math.ceil(remaining / rate) : undefined,
    }
  }
}
