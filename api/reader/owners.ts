import type { Logger } from 'pino'
import { reasonOf, TidemarkError, UnavailableError } from '../../processor/contract/errors.ts'
import type { Copy, Owner, OwnerMap, PartitionInfo } from '../../processor/contract/query.ts'
import { LateError } from './exchange.ts'

export interface OwnersOptions {
  readonly load: () => Promise<OwnerMap>
  /** A monotonic clock, ms: a clock that is set back would stop all loads. */
  readonly now: () => number
  readonly logger: Logger
  /** Least time between two loads, ms, however many readers ask. */
  readonly minAgeMs: number
  /** A map older than this, ms, is reloaded beside the next question. */
  readonly maxAgeMs: number
}

/**
 * Keeps the last owner map. It is all that an API process remembers of the cluster, and can be loaded again at any
 * time.
 */
export class Owners {
  readonly #options: OwnersOptions
  #map: OwnerMap | undefined
  #loadedAt = Number.NEGATIVE_INFINITY
  #loading: Promise<OwnerMap> | undefined
  #failing = false

  constructor(options: OwnersOptions) {
    this.#options = options
  }

  /** Throws UnavailableError while there never was a map. */
  current(): OwnerMap | Promise<OwnerMap> {
    if (this.#map === undefined) return this.renew()
    if (this.#options.now() - this.#loadedAt > this.#options.maxAgeMs) this.hint()
    return this.#map
  }

  /** False while the last load is younger than `minAgeMs`, when `renew` would wait. */
  get renewable(): boolean {
    return this.#loading !== undefined || this.#waitMs() <= 0
  }

  /**
   * Resolves with the map of the load under way, or of one that begins as soon as `minAgeMs` allows; with the last map
   * when that fails.
   */
  renew(): Promise<OwnerMap> {
    this.#loading ??= this.#load().finally(() => {
      this.#loading = undefined
    })
    return this.#loading
  }

  /** Reloads the map without waiting, if that may be done now: something suggests that it is old. */
  hint(): void {
    // The load logged its failure, and the next question meets it again.
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

export interface Copies {
  readonly all: readonly Copy[]
  /** A member has not answered in time, and may hold further copies. */
  readonly late: boolean
}

/** Asks every member of `map`. A member that does not answer is left out. */
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

/** Lists every partition, with or without an owner. */
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

/** Two members may take themselves for the owner while a partition moves. The map decides first, then progress. */
function ownerAmong(copies: readonly Copy[], active: string | undefined): Copy | undefined {
  const owners = copies.filter((copy) => copy.role === 'owner')
  return (
    owners.find((copy) => copy.instance === active) ?? owners.sort((a, b) => b.changelogOffset - a.changelogOffset)[0]
  )
}
