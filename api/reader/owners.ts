import type { Logger } from 'pino'
import { reasonOf, UnavailableError } from '../../processor/contract/errors.ts'
import type { OwnerMap } from '../../processor/contract/query.ts'

export interface OwnersOptions {
  readonly load: () => Promise<OwnerMap>
  /** Of a clock that never goes back, ms: if it did, no map would be loaded until it is where it was. */
  readonly now: () => number
  readonly logger: Logger
  /** Least time between two loads, in ms, however many readers ask. */
  readonly minAgeMs: number
  /** A map older than this, in ms, is loaded anew beside the next question. */
  readonly maxAgeMs: number
}

/** The owner map as last loaded: the only thing an API process remembers, and it can be had again at any time. */
export class Owners {
  readonly #options: OwnersOptions
  #map: OwnerMap | undefined
  #loadedAt = Number.NEGATIVE_INFINITY
  #loading: Promise<OwnerMap> | undefined
  #failing = false

  constructor(options: OwnersOptions) {
    this.#options = options
  }

  /** The cached map. UnavailableError while none was ever had. */
  current(): OwnerMap | Promise<OwnerMap> {
    if (this.#map === undefined) return this.renew()
    if (this.#options.now() - this.#loadedAt > this.#options.maxAgeMs) this.hint()
    return this.#map
  }

  /** False while the last load is younger than `minAgeMs`: `renew` would wait. */
  get renewable(): boolean {
    return this.#loading !== undefined || this.#waitMs() <= 0
  }

  /** The map as the load under way, or else one begun as soon as `minAgeMs` allows, finds it; the last one when that fails. */
  renew(): Promise<OwnerMap> {
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined
    })
    return this.#loading
  }

  /** Something says that the map is old: load it anew, if that may be done now, without waiting. */
  hint(): void {
    // A failure was logged by the load, and the next question meets it again.
    if (this.renewable) this.renew().catch(() => undefined)
  }

  #waitMs(): number {
    return this.#loadedAt + this.#options.minAgeMs - this.#options.now()
  }

  async #load(): Promise<OwnerMap> {
    const { load, now, logger } = this.#options
    const waitMs = this.#waitMs()
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs))
    this.#loadedAt = now()
    try {
      this.#map = await load()
      if (this.#failing) logger.info('the owners of the partitions are known again')
      this.#failing = false
    } catch (error) {
      if (!this.#failing)
        logger.warn({ err: error }, 'who owns the partitions cannot be learnt; asking the last known owners')
      this.#failing = true
      if (this.#map === undefined) {
        const cause = reasonOf(error)
        throw new UnavailableError('PARTITION_UNAVAILABLE', `who owns the partitions is not known: ${cause}`, 1, error)
      }
    }
    return this.#map
  }
}
