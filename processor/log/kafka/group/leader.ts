import type { Logger } from 'pino'
import { hostAndPort } from '../../../contract/address.ts'
import { ConfigurationError } from '../../../contract/errors.ts'
import { pause, within } from '../../../runtime/pause.ts'
import type { Offset } from '../../log.ts'
import type { Candidate } from '../../placement/assigner.ts'
import { type Balanced, Balancer, loadOf, meanOf, type Rates } from '../../placement/balance.ts'
import type { ClaimContext } from '../claim/claim-context.ts'
import { CONTROL_LANE, type KafkaCluster } from '../cluster.ts'
import type { KafkaMetrics } from '../health.ts'
import type { Joined } from '../protocol/broker.ts'
import { CONSUMER } from '../protocol/wire.ts'
import { TOPIC_RESOURCE } from '../topics.ts'
import { decodeSubscription, encodeAssignment, type Peer, strangerTo, telemetryOf, yields } from './membership.ts'
import { type PingCandidate, pingTargets } from './peers.ts'

/** A member is told of at most this many others with its name that it yields to: one live one is enough. */
const MAX_NAMESAKES = 8

type Known = Peer & PingCandidate

/** Which candidates work on each partition now, by name. */
export function workersOf(candidates: readonly Candidate[]): ReadonlyMap<number, readonly string[]> {
  const workers = new Map<number, string[]>()
  for (const { name, active } of candidates) {
    for (const partition of active) workers.set(partition, [...(workers.get(partition) ?? []), name])
  }
  return workers
}

/**
 * The work of the group's leader: it assigns, and asks for a new assignment when that evens the load. Every member
 * measures, since it may become the leader.
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

  /** Measures until `signal` aborts, and calls `onDue` when an assignment becomes due. Never rejects. */
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

  resign(): void {
    this.#balancer = undefined
    this.due = false
  }

  /** Rejects with ConfigurationError when Kafka could not keep the assignment, or the group works on other topics. */
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
      const { memberId, instance, endpoint, zone, since, active, standby, whole, unfit } = subscription
      const positions = new Map(Object.entries(subscription.positions).map(([key, value]) => [Number(key), value]))
      const { host } = hostAndPort(endpoint)
      known.push({ memberId, endpoint, instance, since, zone, host })
      // A process that restarts may meet its former self in the group, with the same instance.
      return [{ name: `${instance} ${memberId}`, zone, active, standby, positions, whole, unfit }]
    })
    const balanced = this.#balancer.assign(candidates, this.#load.spans)
    this.#tell(balanced, candidates, known)
    const watched = pingTargets(known)
    const workers = workersOf(candidates)
    const namesakes = Map.groupBy(known, ({ instance }) => instance)
    const assignments = known.map((member, i) => {
      const { name } = candidates[i] as Candidate
      const { active, standby } = balanced.assigned.get(name) ?? { active: [], standby: [] }
      const moving = active.filter((partition) => workers.get(partition)?.some((other) => other !== name))
      const heir = balanced.heirs.get(name) ?? []
      const peers = peersOf(member, watched.get(member) ?? [], namesakes.get(member.instance) ?? [])
      const memberAssignment = encodeAssignment(names, { active, standby, moving, heir, peers })
      return { memberId: member.memberId, memberAssignment }
    })
    for (const { memberId, instance, endpoint, telemetry: theirs } of strangers) {
      logger.warn(
        { instance, endpoint, topic: theirs },
        `a processor of other topics has GROUP=${group}: it is assigned nothing`,
      )
      const nothing = { active: [], standby: [], moving: [], heir: [], peers: [], stranger: telemetry }
      assignments.push({ memberId, memberAssignment: encodeAssignment(names, nothing) })
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

/** Names a candidate by its instance, unless two have the same. */
function forPeople(instances: ReadonlyMap<string, string>): (name: string) => string {
  const [once, twice] = [new Set<string>(), new Set<string>()]
  for (const instance of instances.values()) (once.has(instance) ? twice : once).add(instance)
  return (name) => {
    const instance = instances.get(name)
    return instance === undefined || twice.has(instance) ? name : instance
  }
}

/** The members that `member` pings, and those with its name that it yields to. */
function peersOf(member: Known, watched: readonly Known[], namesakes: readonly Known[]): Peer[] {
  const stay = namesakes.filter((other) => other !== member && yields(member, other)).slice(0, MAX_NAMESAKES)
  const told = new Set([...watched, ...stay])
  return [...told].map(({ memberId, endpoint, instance, since }) => ({ memberId, endpoint, instance, since }))
}

const TOPIC = '__consumer_offsets'
const SETTING = 'max.message.bytes'
/** Kafka is not asked about a smaller record: every topic takes this much. */
const UNQUESTIONED_BYTES = 64 * 1024
/** The group waits for its leader meanwhile, which sends no heartbeat. */
const DESCRIBE_WITHIN_MS = 2000
/** The record batch, and the group's name, generation and leader. */
const FRAME_BYTES = 2048
/** A member's lengths, timeouts, and the address of its host. */
const MEMBER_BYTES = 96

export interface MemberAssignment {
  readonly memberId: string
  readonly memberAssignment: Buffer
}

/**
 * Upper bound of the record in which Kafka keeps the group (GroupMetadataValue), bytes. It holds the ids,
 * subscriptions and assignments of all members.
 */
export function groupRecordBytes(members: Joined['members'], assignments: readonly MemberAssignment[]): number {
  let bytes = FRAME_BYTES
  // The record has the member's id and its client id, with which the member's id begins.
  for (const { memberId, memberMetadata } of members)
    bytes += MEMBER_BYTES + 2 * memberId.length + memberMetadata.length
  for (const { memberAssignment } of assignments) bytes += memberAssignment.length
  return bytes
}

/**
 * Rejects with ConfigurationError when Kafka cannot keep the group. Kafka answers every member with
 * UNKNOWN_SERVER_ERROR when the assignment makes the record too large. If the leader alone ends, there is one member
 * less, and the others go on.
 */
async function checkGroupRecord(
  cluster: KafkaCluster,
  group: string,
  { members }: Joined,
  assignments: readonly MemberAssignment[],
  logger: Logger,
): Promise<void> {
  const bytes = groupRecordBytes(members, assignments)
  if (bytes <= UNQUESTIONED_BYTES) return
  const most = await maxBytes(cluster)
  if (most === undefined) {
    logger.warn({ group, bytes }, `Kafka does not tell ${SETTING} of ${TOPIC}: the group's record must be smaller`)
  }
  if (most === undefined || bytes <= most) return
  throw new ConfigurationError(
    'LOG_MISMATCH',
    `group ${group}: Kafka keeps its ${members.length} members in one record, which takes ${bytes} bytes; ` +
      `${SETTING} of ${TOPIC} is ${most}: raise it, or run fewer processors, or give them shorter INSTANCE_IDs and host names`,
  )
}

/** Undefined when Kafka does not answer in time, or the user may not describe the topic. */
async function maxBytes(cluster: KafkaCluster): Promise<number | undefined> {
  const resources = [{ type: TOPIC_RESOURCE, name: TOPIC, configNames: [SETTING] }]
  const described = cluster
    .retry(DESCRIBE_WITHIN_MS, undefined, async () => {
      const { requests } = await cluster.anyConnection(CONTROL_LANE)
      return requests.describeConfigs({ resources })
    })
    .catch(() => undefined)
  const told = await within(described, DESCRIBE_WITHIN_MS, () => undefined)
  const value = told?.resources[0]?.configEntries[0]?.configValue
  return value === undefined ? undefined : Number(value)
}

const LATEST = -1
const READ_UNCOMMITTED = 0
const LOAD_WITHIN_MS = 5000
const MAX_SPANS = 6

/**
 * Records that arrive in each partition, from the log's ends. Neither the owner nor its consumer lag changes it, so a
 * move never causes another one.
 */
export class KafkaLoad {
  readonly #cluster: KafkaCluster
  readonly #topic: string
  readonly #partitions: number
  readonly #spans: Rates[] = []
  #last: { readonly ends: readonly Offset[]; readonly at: number } | undefined

  constructor(cluster: KafkaCluster, topic: string, partitions: number) {
    this.#cluster = cluster
    this.#topic = topic
    this.#partitions = partitions
  }

  /** Records per second of each partition between measurements, the oldest first. At most six. */
  get spans(): readonly Rates[] {
    return this.#spans
  }

  /** Ends a span. When it rejects, the span goes on. */
  async measure(signal: AbortSignal): Promise<void> {
    const ends = await this.#cluster.retry(LOAD_WITHIN_MS, signal, () => this.#ends())
    const [at, last] = [performance.now(), this.#last]
    this.#last = { ends, at }
    if (last === undefined) return
    const seconds = (at - last.at) / 1000
    this.#spans.push(ends.map((end, partition) => Math.max(0, end - (last.ends[partition] ?? end)) / seconds))
    if (this.#spans.length > MAX_SPANS) this.#spans.shift()
  }

  async #ends(): Promise<Offset[]> {
    const partitions = Array.from({ length: this.#partitions }, (_, partition) => partition)
    const leaders = await Promise.all(partitions.map((partition) => this.#cluster.leader(this.#topic, partition)))
    const ends: Offset[] = []
    const asked = [...Map.groupBy(partitions, (partition) => leaders[partition] as number)].map(
      async ([leader, led]) => {
        const { requests } = await this.#cluster.connection(CONTROL_LANE, leader)
        const topics = [{ topic: this.#topic, partitions: led.map((partition) => ({ partition, timestamp: LATEST })) }]
        const answer = await requests.listOffsets({ replicaId: CONSUMER, isolationLevel: READ_UNCOMMITTED, topics })
        for (const { partition, offset } of answer.responses[0]?.partitions ?? []) ends[partition] = Number(offset)
      },
    )
    await Promise.all(asked)
    return partitions.map((partition) => {
      const end = ends[partition]
      if (end === undefined) throw new Error(`${this.#topic} ${partition}: an empty answer`)
      return end
    })
  }
}
