import type { Restore } from '../contract/query.ts'
import type { Offset } from '../log/log.ts'

/** Below this much time the rate is noise, ms. */
const MIN_ELAPSED_MS = 500
/**
 * The rate covers the last RATE_MS to twice that, ms. A longer time would hide that a restore has come from the part of
 * the changelog that compaction thinned out, where offsets go by fast, into the dense part.
 */
const RATE_MS = 2_000

/** A known end serves the next role if that begins within this time, ms: as old as the end that a working copy knows. */
const KNOWN_FOR_MS = 5_000

/** A position at a time. */
interface Mark {
  readonly at: number
  readonly position: Offset
}

/** How far a copy has come in the changelog, and how fast it goes; kept from role to role. */
export class RestoreProgress {
  readonly #now: () => number
  /** RATE_MS apart or more; the same mark at the beginning. */
  #older: Mark | undefined
  #newer: Mark | undefined
  #position: Offset = 0
  /** End of the changelog. Undefined: unknown. */
  #end: Offset | undefined
  /** Since when no role works on the copy. */
  #idleSince: number | undefined

  /** `now`: ms, on a clock that nobody sets. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** The copy is at `position` of a changelog that ends at `end`. */
  reached(position: Offset, end: Offset): void {
    const here = { at: this.#now(), position }
    this.#newer ??= here
    this.#older ??= here
    if (here.at - this.#newer.at >= RATE_MS) {
      this.#older = this.#newer
      this.#newer = here
    }
    this.#position = position
    this.#end = end
  }

  sawEnd(end: Offset): void {
    this.#end = Math.max(this.#end ?? 0, end)
  }

  /** A role begins to read at `position`; `end`: of the changelog, where the role knows it. */
  start(position: Offset, end?: Offset): void {
    if (this.#idleSince !== undefined && this.#now() - this.#idleSince > KNOWN_FOR_MS) this.#end = undefined
    this.#idleSince = undefined
    if (end !== undefined) this.sawEnd(end)
    this.#position = position
    this.#older = undefined
    this.#newer = undefined
  }

  /** The role on the copy has ended. */
  stop(end?: Offset): void {
    if (end !== undefined) this.sawEnd(end)
    this.#idleSince = this.#now()
  }

  /** Offsets to the end: records, and the gaps that compaction left. Undefined while the end is not known. */
  get remaining(): number | undefined {
    return this.#end === undefined ? undefined : Math.max(0, this.#end - this.#position)
  }

  /** Undefined while the end is not known; its `etaSeconds` while the rate is unknown or zero. */
  get restore(): Restore | undefined {
    const { remaining } = this
    if (remaining === undefined) return undefined
    const rate = this.#rate()
    return {
      remaining,
      recordsPerSecond: Math.round(rate),
      etaSeconds: rate > 0 ? Math.ceil(remaining / rate) : undefined,
    }
  }

  /** Offsets a second. */
  #rate(): number {
    const now = this.#now()
    const isOld = this.#newer !== undefined && now - this.#newer.at >= RATE_MS
    const from = isOld ? this.#newer : this.#older
    if (from === undefined || now - from.at < MIN_ELAPSED_MS) return 0
    return ((this.#position - from.position) / (now - from.at)) * 1000
  }
}
