import { UnavailableError } from './contract/errors.ts'
import { formatPosition, type Position } from './contract/position.ts'
import type { Answer, Copy, Freshness, Listing, PartitionReader, PastAnswer } from './contract/query.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from './contract/search.ts'
import type { Role } from './role.ts'
import type { Searcher } from './search.ts'
import type { StateStore } from './store/store.ts'

/** Answers from the copies of this process. An answer's `offset` is what it holds at least; it may hold more. */
export class StoreReader implements PartitionReader {
  readonly #instance: string
  readonly #roles: ReadonlyMap<number, Role>
  readonly #searcher: Searcher

  constructor(instance: string, roles: ReadonlyMap<number, Role>, searcher: Searcher) {
    this.#instance = instance
    this.#roles = roles
    this.#searcher = searcher
  }

  async getMany(partition: number, deviceIds: readonly string[]): Promise<Answer[]> {
    const role = this.#role(partition)
    const freshness = freshnessOf(partition, role)
    const answers: Answer[] = []
    const missing: string[] = []
    const places: number[] = []
    for (let i = 0; i < deviceIds.length; i++) {
      const deviceId = deviceIds[i] as string
      const status = role.committed(deviceId)
      answers.push({ status, freshness })
      if (status !== undefined) continue
      missing.push(deviceId)
      places.push(i)
    }
    if (missing.length === 0) return answers
    const values = await answered(partition, role.store.getMany(missing))
    for (let i = 0; i < places.length; i++) answers[places[i] as number] = { status: values[i], freshness }
    return answers
  }

  async list(partition: number, after: string | undefined, limit: number): Promise<Listing> {
    const role = this.#role(partition)
    const freshness = freshnessOf(partition, role)
    const entries = await answered(partition, role.store.range(after, limit))
    return { items: entries.map(([deviceId, status]) => ({ deviceId, status })), freshness }
  }

  async getPast(position: Position, deviceId: string, withinMs: number): Promise<PastAnswer> {
    const { partition, offset } = position
    const { store, copy } = this.#role(partition)
    const input = store.checkpoint?.input ?? 0
    if (input <= offset && !(await copy.arrivals.past(offset, withinMs))) throw notReached(position, store)
    const [answer] = (await this.getMany(partition, [deviceId])) as [Answer]
    // A store may have been wiped meanwhile, and be on its way again.
    if (answer.freshness.offset <= offset) throw notReached(position, store)
    return { ...answer, outcome: copy.decisions.of(offset) }
  }

  async search(question: SearchQuestion): Promise<SearchSlice> {
    const { partition } = question
    const role = this.#role(partition)
    const freshness = freshnessOf(partition, role)
    return { ...(await answered(partition, this.#searcher.search(role.store, question))), freshness }
  }

  async summarize(question: SummaryQuestion): Promise<SummarySlice> {
    const { partition } = question
    const role = this.#role(partition)
    const freshness = freshnessOf(partition, role)
    return { ...(await answered(partition, this.#searcher.summarize(role.store, question))), freshness }
  }

  async copies(): Promise<Copy[]> {
    const copies: Copy[] = []
    for (const [partition, role] of this.#roles) {
      if (role.state === 'closed') continue
      const { checkpoint, count } = role.store
      copies.push({
        partition,
        instance: this.#instance,
        role: role.kind,
        state: role.state,
        offset: checkpoint?.input ?? 0,
        changelogOffset: checkpoint?.changelog ?? 0,
        lag: role.lag,
        devices: count,
        restore: role.state === 'restoring' ? role.progress.restore : undefined,
      })
    }
    return copies
  }

  #role(partition: number): Role {
    const role = this.#roles.get(partition)
    if (role === undefined || role.state === 'closed') {
      throw new UnavailableError('NOT_OWNER', `${this.#instance} holds no copy of partition ${partition}: ask another`)
    }
    // A copy that has never been whole would call known devices unknown.
    if (role.store.checkpoint?.whole !== true) {
      throw new UnavailableError('PARTITION_UNAVAILABLE', `partition ${partition} is being restored: ask again`)
    }
    return role
  }
}

function freshnessOf(partition: number, role: Role): Freshness {
  const { input = 0, changelog = 0 } = role.store.checkpoint ?? {}
  // What an owner holds while it restores is no newer than a standby's, and may be older.
  const servedBy = role.state === 'running' ? role.kind : 'standby'
  return { partition, offset: input, changelog, lag: role.lag, servedBy }
}

function notReached(position: Position, { checkpoint }: StateStore): UnavailableError {
  const reached = `partition ${position.partition} has reached ${checkpoint?.input ?? 0}`
  return new UnavailableError('POSITION_NOT_REACHED', `${reached}, and not applied ${formatPosition(position)} yet`)
}

/** A store that fails is mended by the role that works on it; a reader asks another copy, or again. */
async function answered<T>(partition: number, read: Promise<T>): Promise<T> {
  try {
    return await read
  } catch (error) {
    throw new UnavailableError('STORE_UNAVAILABLE', `partition ${partition} cannot be read here: ask again`, 1, error)
  }
}
