import { pino } from 'pino'
import { RemoteReaders } from '../../../api/reader/remote.ts'
import type { Copy, Owner } from '../../../processor/contract/query.ts'
import { decodeAssignment, decodeSubscription } from '../../../processor/log/kafka/group/membership.ts'
import type { TopicNames } from '../../../processor/log/kafka/topics.ts'
import { pause } from '../../../processor/runtime/pause.ts'
import type { Hold, Recorder } from '../report/journal.ts'
import type { ForeignKafka } from './foreign.ts'
import type { ApiAddress } from './stage.ts'

/** Who the group says holds a partition, by instance. */
export interface Assigned {
  readonly stable: boolean
  readonly holders: ReadonlyMap<number, Owner>
  /** Everyone who can be asked for its copies. */
  readonly members: readonly Owner[]
}

/** Where an observer looks. Each rejects when it cannot be had now, which tells nothing of the partitions. */
export interface PartitionState {
  assigned(): Promise<Assigned>
  copies(member: Owner): Promise<readonly Copy[]>
}

const LOOK_EVERY_MS = 50
/** What a member said counts for so long. */
const HEARD_MS = 1_000

interface Heard {
  readonly copies: readonly Copy[]
  /** When it was asked, and when it answered: as performance.now() tells it. */
  readonly askedAt: number
  readonly at: number
}

/** Watches who holds each partition and how far it is, and writes down each change. */
export class Observer {
  readonly #sight: PartitionState
  readonly #recorder: Recorder
  readonly #partitions: number
  readonly #heard = new Map<string, Heard>()
  readonly #asking = new Set<string>()
  readonly #holds: Hold[]
  /** Input offset at which the holder of a partition began to run; undefined once it moved on. */
  readonly #began: (number | undefined)[] = []
  readonly #furthest: number[] = []
  #assigned: Assigned = { stable: true, holders: new Map(), members: [] }
  #stable: boolean | undefined

  constructor(sight: PartitionState, partitions: number, recorder: Recorder) {
    this.#sight = sight
    this.#recorder = recorder
    this.#partitions = partitions
    this.#holds = Array.from({ length: partitions }, (_, partition) => {
      return { at: 0, partition, instance: undefined, phase: 'none' as const }
    })
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      void this.#look('', () => this.#lookAtGroup())
      for (const member of this.#assigned.members) {
        void this.#look(member.endpoint, () => this.#hear(member))
      }
      await pause(LOOK_EVERY_MS, signal)
      // Silence is news too.
      this.#note()
    }
  }

  get assigned(): Assigned {
    return this.#assigned
  }

  /** The instance that holds the partition now, and what it last said of its copy when asked after `since`. */
  owner(partition: number, since = 0): { readonly instance: string; readonly copy: Copy | undefined } | undefined {
    const holder = this.#assigned.holders.get(partition)
    if (holder === undefined) return undefined
    return { instance: holder.instance, copy: this.#copy(holder.endpoint, partition, 'owner', since) }
  }

  standbys(partition: number, since = 0): Copy[] {
    return this.#assigned.members.flatMap(({ endpoint }) => this.#copy(endpoint, partition, 'standby', since) ?? [])
  }

  /** Per partition, the furthest input offset that an owner told of, and the lag that the owner tells of now. */
  progress(partition: number): { readonly offset: number; readonly lag: number | undefined } {
    const copy = this.owner(partition)?.copy
    const offset = Math.max(this.#furthest[partition] ?? 0, copy?.offset ?? 0)
    this.#furthest[partition] = offset
    return { offset, lag: copy?.lag }
  }

  #copy(endpoint: string, partition: number, role: Copy['role'], since: number): Copy | undefined {
    const heard = this.#heard.get(endpoint)
    if (heard === undefined || heard.askedAt < since || performance.now() - heard.at > HEARD_MS) return undefined
    return heard.copies.find((copy) => copy.partition === partition && copy.role === role)
  }

  /** One look at a time at each thing: one that does not answer holds up only itself. */
  async #look(name: string, look: () => Promise<void>): Promise<void> {
    if (this.#asking.has(name)) return
    this.#asking.add(name)
    try {
      await look()
    } catch {
      // Kafka or a process is away: the drill's doing, most likely, and the journal shows it by what is not heard.
    } finally {
      this.#asking.delete(name)
    }
  }

  async #lookAtGroup(): Promise<void> {
    const assigned = await this.#sight.assigned()
    // Between two assignments the group tells nothing of who holds what.
    this.#assigned = assigned.stable ? assigned : { ...this.#assigned, stable: false }
    const { elapsed: at, groupStates } = this.#recorder
    if (assigned.stable !== this.#stable) this.#recorder.add(groupStates, { at, stable: assigned.stable })
    this.#stable = assigned.stable
    this.#note()
  }

  async #hear(member: Owner): Promise<void> {
    const askedAt = performance.now()
    const copies = await this.#sight.copies(member)
    this.#heard.set(member.endpoint, { copies, askedAt, at: performance.now() })
    this.#note()
  }

  #note(): void {
    const { elapsed: at, holds, advances } = this.#recorder
    for (let partition = 0; partition < this.#partitions; partition++) {
      const owner = this.owner(partition)
      const instance = owner?.instance
      const before = this.#holds[partition] as Hold
      const same = before.instance === instance
      const phase = owner === undefined ? 'none' : (owner.copy?.state ?? 'unheard')
      if (!same || phase !== before.phase) {
        const hold: Hold = { at, partition, instance, phase }
        this.#holds[partition] = hold
        this.#recorder.add(holds, hold)
        if (!same || phase === 'restoring') this.#began[partition] = owner?.copy?.offset ?? -1
      }
      const began = this.#began[partition]
      const copy = owner?.copy
      if (began === undefined || copy === undefined || instance === undefined) continue
      if (began < 0) {
        this.#began[partition] = copy.offset
      } else if (copy.state === 'running' && copy.offset > began) {
        this.#began[partition] = undefined
        this.#recorder.add(advances, { at, partition, instance })
      }
    }
  }
}

const ANSWER_MS = 500
/** Of a page of statuses, read when all is over: no hurry. */
const PAGE_MS = 30_000

/** The group as Kafka's coordinator tells of it, and the processors asked one by one: without the API in between. */
export class KafkaSight implements PartitionState, Disposable {
  readonly #foreign: ForeignKafka
  readonly #group: string
  readonly #names: TopicNames
  readonly #readers: RemoteReaders
  /** For whole copies. */
  readonly pages: RemoteReaders

  constructor(foreign: ForeignKafka, group: string, names: TopicNames, secret: string | undefined) {
    this.#foreign = foreign
    this.#group = group
    this.#names = names
    const logger = pino({ level: 'silent' })
    this.#readers = new RemoteReaders({ secret, logger, answerWithinMs: ANSWER_MS })
    this.pages = new RemoteReaders({ secret, logger, answerWithinMs: PAGE_MS })
  }

  async assigned(): Promise<Assigned> {
    const { stable, members: described } = await this.#foreign.group(this.#group)
    const holders = new Map<number, Owner>()
    const members: Owner[] = []
    for (const { metadata, assignment } of described) {
      const subscription = decodeSubscription(metadata)
      if (subscription === undefined) continue
      const member = { instance: subscription.instance, endpoint: subscription.endpoint }
      members.push(member)
      for (const partition of decodeAssignment(this.#names, assignment).active) holders.set(partition, member)
    }
    return { stable, holders, members }
  }

  copies(member: Owner): Promise<Copy[]> {
    return this.#readers.connect(member).copies()
  }

  [Symbol.dispose](): void {
    this.#readers[Symbol.dispose]()
    this.pages[Symbol.dispose]()
  }
}

interface ApiPartition {
  readonly partition: number
  readonly owner: Omit<Copy, 'partition' | 'role'> | null
  readonly standbys: readonly Omit<Copy, 'partition' | 'role'>[]
}

/** What the API of a single process tells of its partitions. */
export class ApiSight implements PartitionState {
  readonly #api: ApiAddress

  constructor(api: ApiAddress) {
    this.#api = api
  }

  async assigned(): Promise<Assigned> {
    const holders = new Map<number, Owner>()
    const members = new Map<string, Owner>()
    for (const { partition, role, instance } of await this.#all()) {
      const member = { instance, endpoint: instance }
      members.set(instance, member)
      if (role === 'owner') holders.set(partition, member)
    }
    return { stable: true, holders, members: [...members.values()] }
  }

  async copies(member: Owner): Promise<Copy[]> {
    return (await this.#all()).filter(({ instance }) => instance === member.instance)
  }

  async #all(): Promise<Copy[]> {
    const response = await fetch(`${this.#api.url}/v1/partitions`, {
      headers: this.#api.headers,
      signal: AbortSignal.timeout(ANSWER_MS),
    })
    const { partitions } = (await response.json()) as { partitions: readonly ApiPartition[] }
    return partitions.flatMap(({ partition, owner, standbys }) => [
      ...(owner === null ? [] : [{ ...owner, partition, role: 'owner' as const }]),
      ...standbys.map((copy) => ({ ...copy, partition, role: 'standby' as const })),
    ])
  }
}
