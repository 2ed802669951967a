import type { Restore } from '../contract/query.ts'
import type { Offset } from '../log/log.ts'

/** Below this the rate is noise, ms. */
const MIN_ELAPSED_MS = 500
/**
 * The rate is that of the last RATE_MS to twice that, ms: more would hide that a restore comes from the part that
 * compaction has thinned out, where offsets go by fast, into the dense one. Batches come many times a second.
 */
const RATE_MS = 2_000

/**
 * What was known of the end is good for a role that begins so soon after the last one, ms: a copy that is at work asks for
 * the end as seldom. Later, much may have been committed since.
 */
const KNOWN_FOR_MS = 5_000

/** Where the copy was at some time. */
interface Mark {
  readonly at: number
  readonly position: Offset
}

/** How far a copy is on its way through the changelog, and how fast it goes; kept from role to role. */
export class Progress {
  readonly #now: () => number
  /** RATE_MS apart or more, and the same at the beginning. */
  #older: Mark | undefined
  #newer: Mark | undefined
  #position: Offset = 0
  /** Undefined while it is not known. */
  #end: Offset | undefined
  /** Since when no role is at work on the copy. */
  #idleSince: number | undefined

  /** `now`: ms, of a clock that nobody sets. */
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

  /** The changelog was found to end at `end`. */
  sighted(end: Offset): void {
    this.#end = Math.max(this.#end ?? 0, end)
  }

  /** What follows is another way, from `position`; `end`: of the changelog, where the role knows it. */
  restart(position: Offset, end?: Offset): void {
    if (this.#idleSince !== undefined && this.#now() - this.#idleSince > KNOWN_FOR_MS) this.#end = undefined
    this.#idleSince = undefined
    if (end !== undefined) this.sighted(end)
    this.#position = position
    this.#older = undefined
    this.#newer = undefined
  }

  /** The role on the copy has ended; `end`: as `restart` has it. */
  rest(end?: Offset): void {
    if (end !== undefined) this.sighted(end)
    this.#idleSince = this.#now()
  }

  /** Offsets to the end: records, and the gaps that compaction left. Undefined while the end is not known. */
  get remaining(): number | undefined {
    return this.#end === undefined ? undefined : Math.max(0, this.#end - this.#position)
  }

  /**
   * Undefined while the end is not known; its `etaSeconds` while the rate is not known, and while the copy stands still.
   */
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
