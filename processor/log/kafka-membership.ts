import type { Owner } from '../contract/query.ts'
import type { TopicNames } from './kafka-topics.ts'
import { WireReader, WireWriter } from './kafka-wire.ts'

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

/** Undefined for a member that is not one of ours. */
export function decodeSubscription(bytes: Buffer): Subscription | undefined {
  if (bytes.length === 0) return undefined
  const reader = new WireReader(bytes)
  reader.int16()
  reader.array(() => reader.string())
  const userData = reader.bytesOrNull()
  if (userData === null) return undefined
  try {
    const subscription = JSON.parse(userData.toString()) as Partial<Subscription>
    if (typeof subscription.instance !== 'string' || typeof subscription.endpoint !== 'string') return undefined
    return { active: [], standby: [], positions: {}, whole: [], ...subscription } as Subscription
  } catch {
    return undefined
  }
}

/** For a member that `readsIds`, or for one of an older version. */
export function encodeAssignment(names: TopicNames, assignment: Assignment, readsIds: boolean): Buffer {
  const { active, standby, moving, heir } = assignment
  const peers = readsIds ? assignment.peers.map(shortened) : assignment.peers
  const writer = new WireWriter().int16(VERSION).int32(2)
  writer.string(names.telemetry).int32(active.length)
  for (const partition of active) writer.int32(partition)
  writer.string(names.status).int32(standby.length)
  for (const partition of standby) writer.int32(partition)
  const userData = Buffer.from(JSON.stringify({ peers, moving, heir }))
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
  const { moving = [], heir = [] } = told
  const peers = (told.peers ?? []).map((peer) => ({ ...ownerOf(peer.memberId), ...peer }) as Peer)
  return { active: topics.get(names.telemetry) ?? [], standby: topics.get(names.status) ?? [], moving, heir, peers }
}

type ShortPeer = Pick<Peer, 'memberId' | 'since'> & Partial<Peer>
type Told = Partial<Pick<Assignment, 'moving' | 'heir'>> & { readonly peers?: readonly ShortPeer[] }

/** The id has most of the bytes already, and Kafka keeps all that the leader tells in one record. */
function shortened(peer: Peer): ShortPeer {
  const { memberId, instance, endpoint, since } = peer
  const owner = ownerOf(memberId)
  return owner?.instance === instance && owner.endpoint === endpoint ? { memberId, since } : peer
}
