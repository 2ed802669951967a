import type { Logger } from 'pino'
import { reasonOf, TidemarkError, UnavailableError } from '../../processor/contract/errors.ts'
import type { Copy, Owner, OwnerMap, PartitionInfo } from '../../processor/contract/query.ts'
import { LateError } from './exchange.ts'

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

/** What members say of the copies they hold. */
export interface Copies {
  readonly all: readonly Copy[]
  /** A member has not answered in time, and may hold further ones. */
  readonly late: boolean
}

/** Asks every member of `map`. One that does not answer leaves its copies out. */
export async function copiesOf(map: OwnerMap, ask: (member: Owner) => Promise<Copy[]>): Promise<Copies> {
  const members = new Map<string, Owner>()
  for (const { active, standbys } of map.values()) {
    for (const owner of active === undefined ? standbys : [active, ...standbys]) members.set(owner.endpoint, owner)
  }
  let late = false
  const answers = Array.from(members.values(), async (member) => {
    try {
      return await ask(member)
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error
      late ||= error instanceof LateError
      return []
    }
  })
  return { all: (await Promise.all(answers)).flat(), late }
}

/** Every partition is there, with or without an owner. */
export function partitionsOf(map: OwnerMap, partitions: number, copies: readonly Copy[]): PartitionInfo[] {
  return Array.from({ length: partitions }, (_, partition) => {
    const here = copies.filter((copy) => copy.partition === partition)
    const active = map.get(partition)?.active?.instance
    return {
      partition,
      owner: ownerAmong(here, active),
      standbys: here.filter((copy) => copy.role === 'standby'),
    }
  })
}

/** Two members may hold themselves for the owner while a partition moves; then the map decides, then who is further. */
function ownerAmong(copies: readonly Copy[], active: string | undefined): Copy | undefined {
  const owners = copies.filter((copy) => copy.role === 'owner')
  return (
    owners.find((copy) => copy.instance === active) ?? owners.sort((a, b) => b.changelogOffset - a.changelogOffset)[0]
  )
}
