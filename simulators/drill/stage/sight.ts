import { pino } from 'pino'
import { RemoteReaders } from '../../../api/reader/remote.ts'
import type { Copy, Owner } from '../../../processor/contract/query.ts'
import { decodeAssignment, decodeSubscription } from '../../../processor/log/kafka/group/membership.ts'
import type { TopicNames } from '../../../processor/log/kafka/topics.ts'
import type { ForeignKafka } from './foreign.ts'
import type { Assigned, Sight } from './observer.ts'
import type { ApiAddress } from './stage.ts'

const ANSWER_MS = 500
/** Of a page of statuses, read when all is over: no hurry. */
const PAGE_MS = 30_000

/** The group as Kafka's coordinator tells of it, and the processors asked one by one: without the API in between. */
export class KafkaSight implements Sight, Disposable {
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
export class ApiSight implements Sight {
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
