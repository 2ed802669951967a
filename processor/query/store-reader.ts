import type { Logger } from 'pino'
import { TidemarkError, UnavailableError } from '../contract/errors.ts'
import {
  type Answer,
  type Copy,
  type Freshness,
  type Listing,
  type PartitionReader,
  type PastAnswer,
  sliceOf,
} from '../contract/query.ts'
import { formatPosition, type Position } from '../contract/record.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from '../contract/search.ts'
import { isBare, readableStatus } from '../contract/status.ts'
import { devicesIn, type Role } from '../partition/role.ts'
import type { FoundSlice, Searcher } from '../search/searcher.ts'
import type { StateStore } from '../store/store.ts'

/** Devices that this process names in its log. Further ones are not mentioned. */
const MAX_NAMED = 100

/** Reports statuses that a foreign program wrote to the changelog. Readers still get an object of the device. */
export class ForeignStatuses {
  readonly #logger: Logger
  readonly #named = new Set<string>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  shown(partition: number, deviceId: string, stored: Uint8Array): Uint8Array {
    const status = readableStatus(stored, deviceId)
    // A search replaces what is no status itself.
    if (isBare(status, deviceId) && this.#named.size < MAX_NAMED && !this.#named.has(deviceId)) {
      this.#named.add(deviceId)
      const device = { partition, device: deviceId }
      this.#logger.error(device, 'what the changelog holds of a device is no status: it is shown by its id alone')
    }
    return status
  }
}

/** Bytes of statuses in one listing: a caller holds all of them, and many may call. */
const MAX_LISTED_BYTES = 1024 * 1024

export interface StoreReaderOptions {
  readonly instance: string
  readonly roles: ReadonlyMap<number, Role>
  readonly searcher: Searcher
  readonly foreign: ForeignStatuses
}

/** Answers from the copies of this process. An answer includes everything before its `offset`, and may include more. */
export class StoreReader implements PartitionReader {
  readonly #instance: string
  readonly #roles: ReadonlyMap<number, Role>
  readonly #searcher: Searcher
  readonly #foreign: ForeignStatuses

  constructor({ instance, roles, searcher, foreign }: StoreReaderOptions) {
    this.#instance = instance
    this.#roles = roles
    this.#searcher = searcher
    this.#foreign = foreign
  }

  async getMany(partition: number, deviceIds: readonly string[]): Promise<Answer[]> {
    const answers = await this.getEach(
      deviceIds,
      deviceIds.map(() => partition),
    )
    for (const answer of answers) if (answer instanceof TidemarkError) throw answer
    return answers as Answer[]
  }

  async getEach(deviceIds: readonly string[], partitions: readonly number[]): Promise<(Answer | TidemarkError)[]> {
    const views: (View | TidemarkError | undefined)[] = []
    const answers: (Answer | TidemarkError)[] = []
    let missing: Map<View, number[]> | undefined
    for (let i = 0; i < deviceIds.length; i++) {
      const partition = partitions[i] as number
      const view = (views[partition] ??= this.#viewOrError(partition))
      if (view instanceof TidemarkError) {
        answers.push(view)
        continue
      }
      const status = view.role.cached(deviceIds[i] as string)
      answers.push({ status, freshness: view.freshness })
      if (status !== undefined) continue
      missing ??= new Map()
      const places = missing.get(view)
      if (places === undefined) missing.set(view, [i])
      else places.push(i)
    }
    if (missing === undefined) return answers
    const read = async (view: View, places: readonly number[]): Promise<void> => {
      try {
        await this.#readMissing(view, deviceIds, places, answers)
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error
        for (const i of places) answers[i] = error
      }
    }
    await Promise.all(Array.from(missing, ([view, places]) => read(view, places)))
    return answers
  }

  async list(partition: number, after: string | undefined, limit: number): Promise<Listing> {
    const view = this.#view(partition)
    const { freshness } = view
    const entries = await answered(view, view.role.store.range(after, limit, MAX_LISTED_BYTES))
    const items = entries.map(([deviceId, status]) => ({
      deviceId,
      status: this.#foreign.shown(partition, deviceId, status),
    }))
    return { items, freshness }
  }

  async getPast(position: Position, deviceId: string, withinMs: number): Promise<PastAnswer> {
    const { partition, offset } = position
    const { store, copy } = this.#view(partition).role
    const input = store.checkpoint?.input ?? 0
    if (input <= offset && !(await copy.waiters.applied(offset, withinMs))) throw notReached(position, store)
    const [answer] = (await this.getMany(partition, [deviceId])) as [Answer]
    // A store may have been wiped meanwhile, and be on its way again.
    if (answer.freshness.offset <= offset) throw notReached(position, store)
    return { ...answer, outcome: copy.outcomes.of(offset) }
  }

  async search(question: SearchQuestion): Promise<SearchSlice> {
    const { partition } = question
    const view = this.#view(partition)
    const { reached, ...slice } = await answered(view, this.#searcher.search(view.role.store, question))
    const items = slice.items.map(({ deviceId, status }) => ({
      deviceId,
      status: this.#foreign.shown(partition, deviceId, status),
    }))
    return { ...slice, items, freshness: freshnessAt(view, reached) }
  }

  async summarize(question: SummaryQuestion): Promise<SummarySlice> {
    const { partition } = question
    const view = this.#view(partition)
    const { reached, ...slice } = await answered(view, this.#searcher.summarize(view.role.store, question))
    return { ...slice, freshness: freshnessAt(view, reached) }
  }

  async copies(): Promise<Copy[]> {
    const copies: Copy[] = []
    for (const [partition, role] of this.#roles) {
      if (role.state === 'closed') continue
      const { checkpoint } = role.store
      copies.push({
        partition,
        instance: this.#instance,
        role: role.kind,
        state: role.state,
        readable: checkpoint?.whole === true && role.lag !== undefined,
        offset: checkpoint?.input ?? 0,
        changelogOffset: checkpoint?.changelog ?? 0,
        lag: role.waiting,
        devices: devicesIn(role.store),
        restore: role.state === 'restoring' ? role.copy.progress.restore : undefined,
      })
    }
    return copies
  }

  /** Reads statuses that no cache holds into `answers`. */
  async #readMissing(
    view: View,
    deviceIds: readonly string[],
    places: readonly number[],
    answers: (Answer | TidemarkError)[],
  ): Promise<void> {
    if (places.length === 0) return
    const { role, freshness } = view
    const ids = places.map((i) => deviceIds[i] as string)
    const values = await answered(view, role.store.getMany(ids))
    for (let k = 0; k < places.length; k++) {
      const value = values[k]
      const shown = value && this.#foreign.shown(freshness.partition, ids[k] as string, value)
      answers[places[k] as number] = { status: shown && sliceOf(shown), freshness }
    }
  }

  #view(partition: number): View {
    const role = this.#role(partition)
    const { lag } = role
    // The copy may have been away for long. Devices that it lacks would seem never to have existed.
    if (lag === undefined) throw beingRestored(partition)
    return { role, freshness: freshnessOf(partition, role, lag), generation: role.store.generation }
  }

  #viewOrError(partition: number): View | TidemarkError {
    try {
      return this.#view(partition)
    } catch (error) {
      if (error instanceof TidemarkError) return error
      throw error
    }
  }

  #role(partition: number): Role {
    const role = this.#roles.get(partition)
    if (role === undefined || role.state === 'closed') {
      throw new UnavailableError('NOT_OWNER', `${this.#instance} holds no copy of partition ${partition}: ask another`)
    }
    // A copy that has never been whole would call known devices unknown.
    if (role.store.checkpoint?.whole !== true) throw beingRestored(partition)
    return role
  }
}

interface View {
  readonly role: Role
  readonly freshness: Freshness
  readonly generation: number
}

function freshnessOf(partition: number, role: Role, lag: number): Freshness {
  const { input = 0, changelog = 0 } = role.store.checkpoint ?? {}
  // A restoring owner, or one that ends, may be older than a standby.
  const servedBy = role.state === 'running' && !role.doubtful ? role.kind : 'standby'
  return { partition, offset: input, changelog, lag, servedBy }
}

/** The freshness of a slice that was read at `reached`, not when the view was taken. */
function freshnessAt({ role, freshness }: View, reached: FoundSlice['reached']): Freshness {
  if (reached === undefined) return freshness
  const { input, changelog } = reached
  const behind = role.kind === 'owner' ? freshness.offset - input : freshness.changelog - changelog
  return { ...freshness, offset: input, changelog, lag: Math.max(0, freshness.lag + behind) }
}

function notReached(position: Position, { checkpoint }: StateStore): UnavailableError {
  const reached = `partition ${position.partition} has reached ${checkpoint?.input ?? 0}`
  return new UnavailableError('POSITION_NOT_REACHED', `${reached}, and not applied ${formatPosition(position)} yet`)
}

function beingRestored(partition: number): UnavailableError {
  return new UnavailableError('PARTITION_UNAVAILABLE', `partition ${partition} is being restored: ask again`)
}

/** A store that fails is mended by the role that works on it; a reader asks another copy, or again. */
async function answered<T>({ role, freshness, generation }: View, read: Promise<T>): Promise<T> {
  const { partition } = freshness
  let answer: T
  try {
    answer = await read
  } catch (error) {
    throw new UnavailableError('STORE_UNAVAILABLE', `partition ${partition} cannot be read here: ask again`, 1, error)
  }
  // A wipe may have removed devices, which would seem never to have existed.
  if (role.store.generation !== generation) throw beingRestored(partition)
  return answer
}
