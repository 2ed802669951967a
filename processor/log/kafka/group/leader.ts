import { hostAndPort } from '../../../contract/address.ts'
import { pause } from '../../../runtime/pause.ts'
import type { Candidate } from '../../placement/assigner.ts'
import { loadOf, meanOf } from '../../placement/balance.ts'
import { type Balanced, Balancer } from '../../placement/balancer.ts'
import type { ClaimContext } from '../claim/claim-context.ts'
import type { KafkaMetrics } from '../metrics.ts'
import type { Joined } from '../protocol/broker.ts'
import { checkGroupRecord, type MemberAssignment } from './group-record.ts'
import { KafkaLoad } from './load.ts'
import { decodeSubscription, encodeAssignment, type Peer, strangerTo, telemetryOf, yields } from './membership.ts'
import { type Watched, watches } from './watches.ts'

/** Of those to whom a member yields its name so many are told: one that lives will do. */
const MAX_NAMESAKES = 8

/** A candidate as the group knows it. */
type Known = Peer & Watched & { readonly readsIds: boolean }

/** Of the partitions assigned to the candidate `name`, those that another one works on. */
export function movingTo(name: string, assigned: readonly number[], candidates: readonly Candidate[]): number[] {
  const others = candidates.filter((other) => other.name !== name)
  return assigned.filter((partition) => others.some(({ active }) => active.includes(partition)))
}

/**
 * What a member does for the group while it is chosen as its leader: assigns, and asks for a new assignment when that
 * would even the load. Every member measures, as it may be the next one.
 */
export class KafkaLeader {
  readonly #claims: ClaimContext
  readonly #balanceMs: number
  readonly #metrics: KafkaMetrics
  readonly #load: KafkaLoad
  readonly #newBalancer: () => Balancer
  #balancer: Balancer | undefined
  #measured = true
  /** The group should join anew: an assignment is due. */
  due = false

  constructor(claims: ClaimContext, standbys: number, balanceMs: number, metrics: KafkaMetrics) {
    const { cluster, names, identity } = claims
    this.#claims = claims
    this.#balanceMs = balanceMs
    this.#metrics = metrics
    this.#load = new KafkaLoad(cluster, names.telemetry, identity.partitions)
    this.#newBalancer = () => new Balancer(identity.partitions, standbys)
  }

  /** Until `signal` aborts; `onDue` is called whenever an assignment becomes due. Never rejects. */
  async run(signal: AbortSignal, onDue: () => void): Promise<void> {
    const { logger } = this.#claims
    while (!signal.aborted) {
      try {
        await this.#load.measure(signal)
        this.#measured = true
        if (this.#balancer?.round(this.#load.spans) === true) {
          this.due = true
          onDue()
        }
      } catch (error) {
        if (signal.aborted) return
        if (this.#measured) logger.warn({ err: error }, 'the load of the partitions cannot be measured')
        this.#measured = false
      }
      await pause(this.#balanceMs, signal)
    }
  }

  /** Another member leads. */
  resign(): void {
    this.#balancer = undefined
    this.due = false
  }

  /**
   * Rejects with ConfigurationError when Kafka could not keep what is assigned, or this member is for other topics than the
   * group.
   */
  async assign(joined: Joined): Promise<MemberAssignment[]> {
    const { cluster, group, names, logger } = this.#claims
    this.#balancer ??= this.#newBalancer()
    this.due = false
    const ours = joined.members.flatMap(({ memberId, memberMetadata }) => {
      const subscription = decodeSubscription(memberMetadata)
      return subscription === undefined ? [] : [{ memberId, ...subscription }]
    })
    const telemetry = telemetryOf(ours) ?? names.telemetry
    if (telemetry !== names.telemetry) throw strangerTo(group, names, telemetry)
    const strangers = ours.filter((member) => member.telemetry !== telemetry)
    const known: Known[] = []
    const candidates = ours.flatMap((subscription): Candidate[] => {
      if (strangers.includes(subscription)) return []
      const {
        memberId,
        instance,
        endpoint,
        zone,
        since,
        active,
        standby,
        whole,
        unfit,
        readsIds = false,
      } = subscription
      const positions = new Map(Object.entries(subscription.positions).map(([key, value]) => [Number(key), value]))
      const { host } = hostAndPort(endpoint)
      known.push({ memberId, endpoint, instance, since, zone, host, readsIds })
      // A process that was killed and is back may meet its old self, which has the same instance.
      return [{ name: `${instance} ${memberId}`, zone, active, standby, positions, whole, unfit }]
    })
    const balanced = this.#balancer.assign(candidates, this.#load.spans)
    this.#tell(balanced, candidates, known)
    const watched = watches(known)
    const assignments = known.map((member, i) => {
      const { name } = candidates[i] as Candidate
      const { active, standby } = balanced.assigned.get(name) ?? { active: [], standby: [] }
      const moving = movingTo(name, active, candidates)
      const heir = balanced.heirs.get(name) ?? []
      const peers = peersOf(member, watched.get(member) ?? [], known)
      const assignment = { active, standby, moving, heir, peers }
      const memberAssignment = encodeAssignment(names, assignment, member.readsIds)
      return { memberId: member.memberId, memberAssignment }
    })
    for (const { memberId, instance, endpoint, telemetry: theirs } of strangers) {
      logger.warn(
        { instance, endpoint, topic: theirs },
        `a processor of other topics has GROUP=${group}: it is assigned nothing`,
      )
      const nothing = { active: [], standby: [], moving: [], heir: [], peers: [], stranger: telemetry }
      assignments.push({ memberId, memberAssignment: encodeAssignment(names, nothing, true) })
    }
    await checkGroupRecord(cluster, group, joined, assignments, logger)
    return assignments
  }

  #tell({ heirs, moved, warming }: Balanced, candidates: readonly Candidate[], known: readonly Known[]): void {
    const { logger } = this.#claims
    const instances = candidates.map(({ name }, i) => [name, known[i]?.instance ?? name] as const)
    const processorOf = forPeople(new Map(instances))
    const waiting = [...heirs].filter(([, partitions]) => partitions.length > 0)
    if (waiting.length > 0) {
      logger.info(
        { heirs: Object.fromEntries(waiting.map(([name, partitions]) => [processorOf(name), partitions])) },
        'partitions stay until the copies of their next owners are whole',
      )
    }
    if (moved.length + warming.length === 0) return
    const rates = meanOf(this.#load.spans)
    const recordsPerSecond = Object.fromEntries(
      candidates.map((c) => [processorOf(c.name), Math.round(loadOf(c, rates))]),
    )
    this.#metrics.moves.inc(moved.length)
    const what = moved.length > 0 ? 'partitions move' : 'copies are made where partitions shall move'
    const moves = [...moved, ...warming].map(({ partition, from, to }) => {
      return { partition, from: processorOf(from), to: processorOf(to) }
    })
    logger.info({ recordsPerSecond, moves }, `the load is uneven: ${what}`)
  }
}

/** Instead of a candidate's name its instance, unless another one has that too. */
function forPeople(instances: ReadonlyMap<string, string>): (name: string) => string {
  const [once, twice] = [new Set<string>(), new Set<string>()]
  for (const instance of instances.values()) (once.has(instance) ? twice : once).add(instance)
  return (name) => {
    const instance = instances.get(name)
    return instance === undefined || twice.has(instance) ? name : instance
  }
}

/** Whom `member` is told of. */
function peersOf(member: Known, watched: readonly Known[], all: readonly Known[]): Peer[] {
  const namesakes = all.filter((other) => other.instance === member.instance && other !== member)
  const stay = namesakes.filter((other) => yields(member, other)).slice(0, MAX_NAMESAKES)
  const told = new Set([...watched, ...stay, ...(member.readsIds ? [] : [member])])
  return [...told].map(({ memberId, endpoint, instance, since }) => ({ memberId, endpoint, instance, since }))
}
