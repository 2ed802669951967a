import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { ConfigurationError } from '../../../contract/errors.ts'
import type { Owner } from '../../../contract/query.ts'
import { WireReader, WireWriter } from '../protocol/wire.ts'
import type { TopicNames } from '../topics.ts'

/**
 * A member's user data in the consumer protocol (ConsumerProtocolSubscription and ConsumerProtocolAssignment, version
 * 0), so that Kafka's own tools show the group: the telemetry partitions of a member are those it owns, its status
 * partitions those it keeps a standby of. The rest is deflated JSON in the user data.
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
  /** The partitions of `standby` whose copies have caught up with the changelog and follow it. */
  readonly whole: readonly number[]
  /** See Candidate. Only said by a member that is unfit. */
  readonly unfit?: boolean | undefined
}

export interface Assignment {
  readonly active: readonly number[]
  readonly standby: readonly number[]
  /** The partitions of `active` that another member still works on. */
  readonly moving: readonly number[]
  /**
   * The partitions of `standby` that the member will own once its copies have caught up (heirs.ts). Then it joins
   * again.
   */
  readonly heir: readonly number[]
  /** Members that this one pings, and those that have its name. In a large group not everyone. */
  readonly peers: readonly Peer[]
  /** For a member of another TOPIC_PREFIX: the group's telemetry topic. It is assigned nothing, and ends. */
  readonly stranger?: string | undefined
}

export interface Peer {
  readonly memberId: string
  readonly endpoint: string
  readonly instance: string
  /** The first generation of the group that it was in; null while it joins for the first time. */
  readonly since?: number | null | undefined
}

/** Whether `member`, of two live processes with one name, is the one to end: the one that joined later. */
export function yields(member: Peer, other: Peer): boolean {
  if (member.since === undefined || other.since === undefined || member.since === other.since) {
    return member.memberId > other.memberId
  }
  return other.since !== null && (member.since === null || member.since > other.since)
}

/**
 * The telemetry topic that the group works on: that of the members that joined first, or of most of these. If
 * partitions of two logs were assigned as one, processors would own partitions that they know nothing of.
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

export function strangerTo(group: string, { telemetry }: Pick<TopicNames, 'telemetry'>, theirs: string) {
  return new ConfigurationError(
    'LOG_MISMATCH',
    `GROUP=${group}: this processor is for ${telemetry}, and the processors of that group work on ${theirs}: correct ` +
      'TOPIC_PREFIX, or set another GROUP, as each TOPIC_PREFIX needs one of its own',
  )
}

/** Bytes that a member's user data may grow to. */
const MAX_UNPACKED_BYTES = 1024 * 1024

/** Kafka keeps the user data of all members in one record of 1 MiB: deflated, 1,000 members and 10,000 partitions fit. */
function packed(userData: object): Buffer {
  return deflateRawSync(JSON.stringify(userData))
}

/** Throws ConfigurationError for what `packed` did not make. */
function unpacked(userData: Buffer): unknown {
  try {
    return JSON.parse(inflateRawSync(userData, { maxOutputLength: MAX_UNPACKED_BYTES }).toString())
  } catch (error) {
    const message = 'another member of the group runs another version of Tidemark: run one version in a group'
    throw new ConfigurationError('LOG_MISMATCH', message, error)
  }
}

const VERSION = 0
const MEMBER_ID = /^tidemark-(.+)@(.+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/**
 * Client id of the connection over which a member joins. Kafka begins the member's id with it, and tells ids in every
 * state of the group, but user data only in a stable one.
 */
export function clientIdOf({ instance, endpoint }: Owner): string {
  return `tidemark-${instance}@${endpoint}`
}

/** Undefined for a client id that `clientIdOf` did not make. */
export function ownerOf(memberId: string): Owner | undefined {
  const [, instance, endpoint] = MEMBER_ID.exec(memberId) ?? []
  return instance === undefined || endpoint === undefined ? undefined : { instance, endpoint }
}

export function encodeSubscription(names: TopicNames, subscription: Subscription): Buffer {
  const userData = packed(subscription)
  const writer = new WireWriter().int16(VERSION).int32(2).string(names.telemetry).string(names.status)
  return writer.int32(userData.length).raw(userData).finish()
}

/** Undefined for a member that is no processor of Tidemark. */
export function decodeSubscription(bytes: Buffer): (Subscription & Pick<TopicNames, 'telemetry'>) | undefined {
  if (bytes.length === 0) return undefined
  const reader = new WireReader(bytes)
  reader.int16()
  const [telemetry = ''] = reader.array(() => reader.string() ?? '')
  const userData = reader.bytesOrNull()
  if (userData === null) return undefined
  try {
    const subscription = unpacked(userData) as Partial<Subscription>
    if (typeof subscription.instance !== 'string' || typeof subscription.endpoint !== 'string') return undefined
    const { instance, endpoint } = subscription
    return { active: [], standby: [], positions: {}, whole: [], ...subscription, instance, endpoint, telemetry }
  } catch {
    return undefined
  }
}

export function encodeAssignment(names: TopicNames, assignment: Assignment): Buffer {
  const { active, standby, moving, heir, stranger } = assignment
  const peers = assignment.peers.map(shortened)
  const writer = new WireWriter().int16(VERSION).int32(2)
  writer.string(names.telemetry).int32(active.length)
  for (const partition of active) writer.int32(partition)
  writer.string(names.status).int32(standby.length)
  for (const partition of standby) writer.int32(partition)
  const userData = packed({ peers, moving, heir, stranger })
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
  const told: Told = userData === null ? {} : (unpacked(userData) as Told)
  const { moving = [], heir = [], stranger } = told
  const peers = (told.peers ?? []).map((peer) => ({ ...ownerOf(peer.memberId), ...peer }) as Peer)
  const [active = [], standby = []] = [topics.get(names.telemetry), topics.get(names.status)]
  return { active, standby, moving, heir, peers, stranger }
}

type ShortPeer = Pick<Peer, 'memberId' | 'since'> & Partial<Peer>
type Told = Partial<Pick<Assignment, 'moving' | 'heir' | 'stranger'>> & { readonly peers?: readonly ShortPeer[] }

/** Leaves out what the member id says already: Kafka keeps all that the leader sends in one record. */
function shortened(peer: Peer): ShortPeer {
  const { memberId, instance, endpoint, since } = peer
  const owner = ownerOf(memberId)
  return owner?.instance === instance && owner.endpoint === endpoint ? { memberId, since } : peer
}
