import { hostAndPort } from '../../../contract/address.ts'
import { ConfigurationError, RetryableError } from '../../../contract/errors.ts'
import type { Owner, OwnerMap } from '../../../contract/query.ts'
import { pause } from '../../../runtime/pause.ts'
import type { Member } from '../../log.ts'
import type { ClaimContext } from '../claim/claim-context.ts'
import { CONTROL_LANE, GROUP_COORDINATOR } from '../cluster.ts'
import type { KafkaMetrics } from '../health.ts'
import type { DescribedGroup } from '../protocol/broker.ts'
import { KafkaMember, leaveGroup, type MemberOptions, taken } from './member.ts'
import { decodeAssignment, decodeSubscription, ownerOf, type Peer } from './membership.ts'
import { answersAs, isLoopback, look } from './peers.ts'

const DESCRIBE_TIMEOUT_MS = 2000
const POLL_MS = 50

/** The members of this process in the group, and what the group tells of all members. */
export class KafkaGroup {
  readonly #claims: ClaimContext
  readonly #options: MemberOptions
  readonly #metrics: KafkaMetrics
  readonly #members = new Set<KafkaMember>()
  readonly #closing = new AbortController()
  #owners: OwnerMap | undefined
  #asking = false

  constructor(claims: ClaimContext, options: MemberOptions, metrics: KafkaMetrics) {
    this.#claims = claims
    this.#options = options
    this.#metrics = metrics
  }

  async join(member: Member, signal: AbortSignal): Promise<void> {
    const stop = AbortSignal.any([signal, this.#closing.signal])
    const kafkaMember = new KafkaMember(this.#claims, member, this.#options, this.#metrics, {
      suspect: (memberId) => this.#suspect(memberId),
      onLate: () => void this.#evictAwaited(member),
    })
    if (!stop.aborted) {
      kafkaMember.connect()
      await this.#evictDead(member)
    }
    this.#members.add(kafkaMember)
    try {
      await kafkaMember.run(stop)
      if (!signal.aborted) throw new RetryableError('LOG_CLOSED', 'the log was closed')
    } finally {
      this.#members.delete(kafkaMember)
    }
  }

  async owners(): Promise<OwnerMap> {
    const deadline = performance.now() + DESCRIBE_TIMEOUT_MS
    for (;;) {
      const { state, members } = await this.#describe()
      if (state === 'Stable' || state === 'Empty' || state === 'Dead') {
        this.#owners = this.#ownersOf(members)
        return this.#owners
      }
      // During a rebalance the group tells no assignment, and most of the last one is still true.
      if (this.#owners !== undefined) return this.#owners
      if (performance.now() > deadline) return this.#ownersOf([])
      await pause(POLL_MS, this.#closing.signal)
    }
  }

  async #describe(): Promise<DescribedGroup> {
    const { cluster, group } = this.#claims
    const { groups } = await cluster.retry(DESCRIBE_TIMEOUT_MS, this.#closing.signal, async () => {
      const { requests } = await cluster.coordinator(CONTROL_LANE, GROUP_COORDINATOR, group)
      return requests.describeGroups({ groupIds: [group] })
    })
    return groups[0] ?? { state: 'Dead', members: [] }
  }

  /**
   * Evicts dead members before a member joins. A process that restarts after a kill would otherwise wait for the
   * sessions of the dead to end: those of its former self, and of others that died with it. Rejects with
   * ConfigurationError when a live process has the name of `member`.
   */
  async #evictDead(member: Member): Promise<void> {
    const { instance, endpoint } = member
    try {
      await this.#warnOfLoopback(member)
      const listed = await this.#listed()
      const namesakes = listed.filter((other) => other.instance === instance)
      const freed = namesakes.map(async (namesake) => {
        if (namesake.endpoint !== endpoint && (await answersAs(namesake.endpoint, instance))) {
          throw taken(instance, namesake.endpoint)
        }
        await this.#bury(namesake)
      })
      const others = listed.filter((other) => other.instance !== instance)
      await Promise.all([...freed, this.#evictRefused(others, false)])
    } catch (error) {
      if (error instanceof ConfigurationError) throw error
      this.#options.logger.warn({ err: error, instance }, 'the group could not be asked for dead members')
    }
  }

  /** A late rebalance waits for a member that no live member has ever reached. Never rejects. */
  async #evictAwaited({ instance, endpoint }: Member): Promise<void> {
    if (this.#asking) return
    this.#asking = true
    try {
      // `member` itself is at its own endpoint.
      const others = (await this.#listed()).filter((other) => other.endpoint !== endpoint)
      await this.#evictRefused(others, true)
    } catch (error) {
      this.#options.logger.debug({ err: error, instance }, 'the group could not be asked whom it waits for')
    } finally {
      this.#asking = false
    }
  }

  /**
   * A refused connection says that no process is there, or a firewall stands between, or the address is another host's
   * now. A member that answers pings the others from where it stands: while one does, this process judges nobody,
   * unless the rebalance is late.
   */
  async #evictRefused(others: readonly Peer[], awaited: boolean): Promise<void> {
    const looks = await Promise.all(others.map(({ endpoint, instance }) => look(endpoint, instance)))
    if (!awaited && looks.includes('answers')) return
    await Promise.all(others.filter((_, i) => looks[i] === 'refused').map((other) => this.#bury(other)))
  }

  async #bury({ memberId, instance }: Peer): Promise<void> {
    this.#options.logger.warn({ instance, memberId }, 'the group still had a dead member')
    await this.evict(memberId)
  }

  /** Everyone in the group, in whatever state it is. */
  async #listed(): Promise<Peer[]> {
    const { members } = await this.#describe()
    return members.flatMap(({ memberId, memberMetadata }) => {
      const owner = ownerOf(memberId) ?? decodeSubscription(memberMetadata)
      return owner === undefined ? [] : [{ memberId, instance: owner.instance, endpoint: owner.endpoint }]
    })
  }

  async #warnOfLoopback({ instance, endpoint }: Member): Promise<void> {
    if (!isLoopback(hostAndPort(endpoint).host)) return
    const { nodes } = await this.#claims.cluster.metadata()
    const away = [...nodes.values()].find(({ host }) => !isLoopback(host))
    if (away === undefined) return
    this.#options.logger.warn(
      { instance, endpoint, broker: away.host },
      'only processes on this host can reach this processor, but Kafka is on another: if others are too, set HOST to an address that they reach',
    )
  }

  #suspect(memberId: string): void {
    this.#metrics.evictions.inc()
    const nudge = (): void => {
      for (const kafkaMember of this.#members) kafkaMember.nudge()
    }
    this.evict(memberId).then(nudge, (error: unknown) => {
      this.#options.logger.warn({ err: error, memberId }, 'the member could not be evicted')
    })
  }

  #ownersOf(members: readonly { memberMetadata: Buffer; memberAssignment: Buffer }[]): OwnerMap {
    const { identity, names } = this.#claims
    const owners = Array.from({ length: identity.partitions }, () => ({
      active: undefined as Owner | undefined,
      standbys: [] as Owner[],
    }))
    for (const { memberMetadata, memberAssignment } of members) {
      const subscription = decodeSubscription(memberMetadata)
      if (subscription === undefined) continue
      const owner = { instance: subscription.instance, endpoint: subscription.endpoint }
      const { active, standby } = decodeAssignment(names, memberAssignment)
      for (const partition of active) if (owners[partition] !== undefined) owners[partition].active = owner
      for (const partition of standby) owners[partition]?.standbys.push(owner)
    }
    return new Map(owners.entries())
  }

  /**
   * Has a member leave the group, so that its partitions move now and not at the end of its session (LeaveGroup takes
   * any member's id).
   */
  evict(memberId: string): Promise<void> {
    return leaveGroup(this.#claims, memberId, this.#closing.signal)
  }

  get memberIds(): string[] {
    return [...this.#members].map(({ memberId }) => memberId).filter((id) => id !== '')
  }

  /** See KafkaLog.unclaimed. */
  get unclaimed(): (number[] | undefined)[] {
    return [...this.#members].map(({ unclaimed }) => unclaimed)
  }

  /** Behaves as a frozen process: no heartbeat until a claim turns out to be lost. */
  suspend(): void {
    for (const kafkaMember of this.#members) kafkaMember.suspended = true
  }

  close(): void {
    this.#closing.abort()
  }
}
