import { TidemarkError, UnavailableError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import {
  type Answer,
  type Copy,
  type Freshness,
  type Listing,
  type Owner,
  type OwnerMap,
  type PartitionReader,
  type PastAnswer,
  type Slice,
  sliceOf,
} from '../../processor/contract/query.ts'
import type { Position } from '../../processor/contract/record.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from '../../processor/contract/search.ts'
import type { Status } from '../../processor/contract/status.ts'
import type { Outcome } from '../../processor/contract/write.ts'
import { Turns } from '../../processor/runtime/turns.ts'
import { Searcher } from '../../processor/search/searcher.ts'
import type { Way } from '../../processor/store/store.ts'
import { encodeStatus } from '../status-model.ts'

export const AT = '2026-11-24T10:00:00.000Z'

export function statusOf(deviceId: string, reported: Status['reported'] = { t: { value: 21.5, at: AT } }): Status {
  return {
    deviceId,
    rev: 1,
    reported,
    connectivity: { state: 'online', since: AT, reason: 'connected', session: 1 },
    firstSeenAt: AT,
    lastSeenAt: AT,
    counters: { messages: 1, late: 0, duplicates: 0, skewed: 0 },
  }
}

/** Of a device that is offline when it has no battery. */
export function withBattery(deviceId: string, battery?: number, attributes?: Status['attributes']): Status {
  const status = statusOf(deviceId, battery === undefined ? {} : { battery: { value: battery, at: AT } })
  if (battery === undefined) status.connectivity.state = 'offline'
  if (attributes !== undefined) status.attributes = attributes
  return status
}

/** A fleet in memory: some members, each with copies of some partitions; all copies of a partition hold the same. */
export class Fleet {
  readonly partitions: number
  readonly members = new Map<string, MemoryMember>()
  readonly #stored: Map<string, Uint8Array>[]
  /** How often the owner map was asked for. */
  ownersLoaded = 0

  constructor(partitions: number, instances: readonly string[]) {
    this.partitions = partitions
    this.#stored = Array.from({ length: partitions }, () => new Map<string, Uint8Array>())
    for (const instance of instances) this.members.set(instance, new MemoryMember(instance, this.#stored))
    for (let p = 0; p < partitions; p++) this.assign(p, instances[p % instances.length])
  }

  put(deviceId: string, reported?: Status['reported']): void {
    this.#stored[partitionOf(deviceId, this.partitions)]?.set(deviceId, encodeStatus(statusOf(deviceId, reported)))
  }

  putStatus(status: Status): void {
    this.#stored[partitionOf(status.deviceId, this.partitions)]?.set(status.deviceId, encodeStatus(status))
  }

  delete(deviceId: string): void {
    this.#stored[partitionOf(deviceId, this.partitions)]?.delete(deviceId)
  }

  member(instance: string): MemoryMember {
    const member = this.members.get(instance)
    if (member === undefined) throw new Error(`no member ${instance}`)
    return member
  }

  /** Moves a partition: the new owner and its standbys hold copies, nobody else does. */
  assign(partition: number, owner: string | undefined, ...standbys: string[]): void {
    for (const member of this.members.values()) member.roles.delete(partition)
    for (const standby of standbys) this.member(standby).roles.set(partition, 'standby')
    if (owner !== undefined) this.member(owner).roles.set(partition, 'owner')
  }

  readonly owners = async (): Promise<OwnerMap> => {
    this.ownersLoaded++
    const map = new Map<number, { active: Owner | undefined; standbys: Owner[] }>()
    for (let p = 0; p < this.partitions; p++) {
      const holding = (role: string) => [...this.members.values()].filter((member) => member.roles.get(p) === role)
      map.set(p, { active: holding('owner')[0]?.address, standbys: holding('standby').map((member) => member.address) })
    }
    return map
  }

  readonly connect = (owner: Owner): PartitionReader | undefined => this.members.get(owner.endpoint)
}

export class MemoryMember implements PartitionReader {
  readonly address: Owner
  readonly roles = new Map<number, 'owner' | 'standby'>()
  readonly #stored: readonly Map<string, Uint8Array>[]
  /** Thrown, or awaited, by every answer while set. */
  fault: (() => Promise<never> | Promise<void>) | undefined
  /** How far its copies are, and what it knows of writes. */
  offset = 7
  /** Two fewer than `offset` unless it is set. */
  changelogOffset: number | undefined
  /** It owns, and does not hold all of the changelog yet. */
  restoring = false
  /** Its copies answer reads. */
  readable = true
  readonly outcomes = new Map<number, Outcome>()
  /** For how long it was asked to hold each question, ms. */
  readonly held: number[] = []
  asked = 0
  listed = 0
  /** The clock of searches, ms: one that leaps makes slices short, and one that stands still ends none. */
  searchClock: () => number = () => 0
  /** Entries that a search reads at once. */
  searchReads = 1024

  constructor(instance: string, stored: readonly Map<string, Uint8Array>[]) {
    this.address = { instance, endpoint: instance }
    this.#stored = stored
  }

  #status(partition: number, deviceId: string): Slice | undefined {
    const status = this.#stored[partition]?.get(deviceId)
    return status && sliceOf(status)
  }

  async getMany(partition: number, deviceIds: readonly string[]): Promise<Answer[]> {
    const freshness = await this.#enter(partition)
    return deviceIds.map((deviceId) => ({ status: this.#status(partition, deviceId), freshness }))
  }

  async getEach(deviceIds: readonly string[], partitions: readonly number[]): Promise<(Answer | TidemarkError)[]> {
    const entered = new Map<number, Promise<Freshness>>()
    const answers = deviceIds.map(async (deviceId, i) => {
      const partition = partitions[i] as number
      const entering = entered.get(partition) ?? this.#enter(partition)
      entered.set(partition, entering)
      try {
        const freshness = await entering
        return { status: this.#status(partition, deviceId), freshness }
      } catch (error) {
        if (error instanceof TidemarkError) return error
        throw error
      }
    })
    return Promise.all(answers)
  }

  async list(partition: number, after: string | undefined, limit: number): Promise<Listing> {
    const freshness = await this.#enter(partition)
    const entries = [...(this.#stored[partition] ?? [])].filter(([id]) => after === undefined || id > after)
    const sorted = entries.sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, limit)
    this.listed += sorted.length
    return { items: sorted.map(([deviceId, status]) => ({ deviceId, status })), freshness }
  }

  async getPast({ partition, offset }: Position, deviceId: string, withinMs: number): Promise<PastAnswer> {
    this.held.push(withinMs)
    const freshness = await this.#enter(partition)
    if (freshness.offset <= offset) throw new UnavailableError('POSITION_NOT_REACHED', `at ${freshness.offset}`)
    return { status: this.#status(partition, deviceId), freshness, outcome: this.outcomes.get(offset) }
  }

  async search(question: SearchQuestion): Promise<SearchSlice> {
    const freshness = await this.#enter(question.partition)
    return { ...(await this.#searcher().search(this.#store(question.partition), question)), freshness }
  }

  async summarize(question: SummaryQuestion): Promise<SummarySlice> {
    const freshness = await this.#enter(question.partition)
    return { ...(await this.#searcher().summarize(this.#store(question.partition), question)), freshness }
  }

  #searcher(): Searcher {
    return new Searcher(new Turns(), () => this.searchClock(), { maxRead: this.searchReads })
  }

  #store(partition: number) {
    const stored = this.#stored[partition] ?? new Map<string, Uint8Array>()
    const between = (from: string, to: string, { backwards }: Way) => {
      const entries = [...stored].filter(([id]) => id >= from && id < to).sort(([a], [b]) => (a < b ? -1 : 1))
      const left = backwards ? entries.toReversed() : entries
      const next = async (size: number) => {
        const wanted = left.splice(0, size)
        this.listed += wanted.length
        return wanted
      }
      return { next, close: async () => {} }
    }
    const getMany = async (ids: readonly string[]) => ids.map((id) => stored.get(id))
    return { between, getMany, count: stored.size, index: undefined, checkpoint: undefined, generation: 0 }
  }

  async copies(): Promise<Copy[]> {
    await this.fault?.()
    return Array.from(this.roles, ([partition, role]) => {
      const devices = this.#stored[partition]?.size
      const { instance } = this.address
      return {
        partition,
        instance,
        role,
        state: 'running',
        readable: this.readable,
        offset: 7,
        changelogOffset: 5,
        lag: 1,
        devices,
      }
    })
  }

  async #enter(partition: number): Promise<Freshness> {
    this.asked++
    await this.fault?.()
    const servedBy = this.roles.get(partition)
    if (servedBy === undefined) throw new UnavailableError('NOT_OWNER', `partition ${partition} has no copy here`)
    const { offset, restoring, changelogOffset = offset - 2 } = this
    return { partition, offset, changelog: changelogOffset, lag: 1, servedBy: restoring ? 'standby' : servedBy }
  }
}
