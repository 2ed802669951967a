import { ConfigurationError } from '../../../contract/errors.ts'
import type { Owner } from '../../../contract/query.ts'
import { WireReader, WireWriter } from '../protocol/wire.ts'
import type { TopicNames } from '../topics.ts'

/**
 * The consumer protocol (ConsumerProtocolSubscription and ConsumerProtocolAssignment, version 0), so that Kafka's own
 * tools can show the group: the telemetry partitions of a member are those it owns, its status partitions those it keeps
 * a standby of. What else members tell each other is JSON in the user data.
 */
export interface Subscription {
  readonly instance: string
  readonly endpoint: string
  readonly zone?: string | undefined
  /** See Peer. */
  readonly since?: number | null | undefined
  readonly active: readonly number[]
  readonly standby: readonly number[]
  /** Changelog position of each warm copy. */
  readonly positions: Readonly<Record<string, number>>
  /** Of `standby`, those that hold all that the changelog held when they began. */
  readonly whole: readonly number[]
  /** See Candidate. Members of an older version do not tell, and leaders do not ask. */
  readonly unfit?: boolean | undefined
  /** Takes of a peer only what its id does not tell, and need not be told of itself. Members of an older version do not. */
  readonly readsIds?: boolean | undefined
}

export interface Assignment {
  readonly active: readonly number[]
  readonly standby: readonly number[]
  /** Of `active`, what another member of the group still works on. */
  readonly moving: readonly number[]
  /** Of `standby`, what the member is to own when its copies are whole: it joins anew then. */
  readonly heir: readonly number[]
  /** Whom the member watches, and who has its name: of a large group not everyone (watches.ts). */
  readonly peers: readonly Peer[]
  /** Told to a member of other topics: those of the group, by their telemetry. It is assigned nothing, and goes. */
  readonly stranger?: string | undefined
}

export interface Peer {
  readonly memberId: string
  readonly endpoint: string
  readonly instance: string
  /** First generation of the group that it was in, null in that one itself. Members of an older version do not tell. */
  readonly since?: number | null | undefined
}

/** Whether of two live processes with one name `member` is the one to go: the later one, if both tell. */
export function yields(member: Peer, other: Peer): boolean {
  if (member.since === undefined || other.since === undefined || member.since === other.since) {
    return member.memberId > other.memberId
  }
  return other.since !== null && (member.since === null || member.since > other.since)
}

/**
 * Of members by the telemetry that they work on, whose the group is: of those that were in it first, or of most of these.
 * Where partitions of two logs were assigned as one, each would be owned by processors that know nothing of it.
 */
export function telemetryOf(
  members: readonly { readonly telemetry: string; readonly since?: number | null | undefined }[],
): string | undefined {
  const sinceOf = ({ since }: (typeof members)[number]) => since ?? Number.POSITIVE_INFINITY
  const first = Math.min(...members.map(sinceOf))
  const counts = new Map<string, number>()
  for (const member of members) {
    if (sinceOf(member) === first) counts.set(member.telemetry, (counts.get(member.telemetry) ?? 0) + 1)
  }
  const [most] = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
  return most?.[0]
}

/** `theirs`: the telemetry that `group` works on. */
export function strangerTo(group: string, { telemetry }: Pick<TopicNames, 'telemetry'>, theirs: string) {
  return new ConfigurationError(
    'LOG_MISMATCH',
    `GROUP=${group}: this processor is for ${telemetry}, and the processors of that group work on ${theirs}: correct ` +
      'TOPIC_PREFIX, or set another GROUP, as each TOPIC_PREFIX needs one of its own',
  )
}

const VERSION = 0
const MEMBER_ID = /^tidemark-(.+)@(.+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/**
 * Of the connection over which a member joins: Kafka begins the member's id with it, and gives ids in every state of the
 * group, but user data only in the one in which nobody joins or leaves.
 */
export function clientIdOf({ instance, endpoint }: Owner): string {
  return `tidemark-${instance}@${endpoint}`
}

/** Who has the member id; undefined when another than `clientIdOf` named the client. */
export function ownerOf(memberId: string): Owner | undefined {
  const [, instance, endpoint] = MEMBER_ID.exec(memberId) ?? []
  return instance === undefined || endpoint === undefined ? undefined : { instance, endpoint }
}

export function encodeSubscription(names: TopicNames, subscription: Subscription): Buffer {
  const userData = Buffer.from(JSON.stringify(subscription))
  const writer = new WireWriter().int16(VERSION).int32(2).string(names.telemetry).string(names.status)
  return writer.int32(userData.length).raw(userData).finish()
}

/** With the topic of the telemetry that the member works on; undefined for one that is not one of ours. */
export function decodeSubscription(bytes: Buffer): (Subscription & Pick<TopicNames, 'telemetry'>) | undefined {
  if (bytes.length === 0) return undefined
  const reader = new WireReader(bytes)
  reader.int16()
  const [telemetry = ''] = reader.array(() => reader.string() ?? '')
  const userData = reader.bytesOrNull()
  if (userData === null) return undefined
  try {
    const subscription = JSON.parse(userData.toString()) as Partial<Subscription>
    if (typeof subscription.instance !== 'string' || typeof subscription.endpoint !== 'string') return undefined
    const { instance, endpoint } = subscription
    return { active: [], standby: [], positions: {}, whole: [], ...subscription, instance, endpoint, telemetry }
  } catch {
    return undefined
  }
}

/** For a member that `readsIds`, or for one of an older version. */
export function encodeAssignment(names: TopicNames, assignment: Assignment, readsIds: boolean): Buffer {
  const { active, standby, moving, heir, stranger } = assignment
  const peers = readsIds ? assignment.peers.map(shortened) : assignment.peers
  const writer = new WireWriter().int16(VERSION).int32(2)
  writer.string(names.telemetry).int32(active.length)
  for (const partition of active) writer.int32(partition)
  writer.string(names.status).int32(standby.length)
  for (const partition of standby) writer.int32(partition)
  const userData = Buffer.from(JSON.stringify({ peers, moving, heir, stranger }))
  return writer.int32(userData.length).raw(userData).finish()
}

export function decodeAssignment(names: TopicNames, bytes: Buffer): Assignment {
  const topics = new Map<string | null, number[]>()
  let userData: Buffer | null = null
  if (bytes.length > 0) {
    const reader = new WireReader(bytes)
    reader.int16()
    reader.array(() =>
      topics.set(
        reader.string(),
        reader.array(() => reader.int32()),
      ),
    )
    userData = reader.bytesOrNull()
  }
  const told: Told = userData === null ? {} : JSON.parse(userData.toString())
  const { moving = [], heir = [], stranger } = told
  const peers = (told.peers ?? []).map((peer) => ({ ...ownerOf(peer.memberId), ...peer }) as Peer)
  const [active = [], standby = []] = [topics.get(names.telemetry), topics.get(names.status)]
  return { active, standby, moving, heir, peers, stranger }
}

type ShortPeer = Pick<Peer, 'memberId' | 'since'> & Partial<Peer>
type Told = Partial<Pick<Assignment, 'moving' | 'heir' | 'stranger'>> & { readonly peers?: readonly ShortPeer[] }

/** The id has most of the bytes already, and Kafka keeps all that the leader tells in one record. */
function shortened(peer: Peer): ShortPeer {
  const { memberId, instance, endpoint, since } = peer
  const owner = ownerOf(memberId)
  return owner?.instance === instance && owner.endpoint === endpoint ? { memberId, since } : peer
}
