import { ConfigurationError } from '../contract/errors.ts'
import type { Joined } from './kafka-broker.ts'
import type { KafkaCluster } from './kafka-cluster.ts'

const LANE = 'control'
const TOPIC = '__consumer_offsets'
const TOPIC_RESOURCE = 2
const SETTING = 'max.message.bytes'
/** Of message.max.bytes, which the topic has unless somebody set it. */
const DEFAULT_MAX_BYTES = 1_048_588
/** No topic is meant to take less: up to so much nobody is asked. */
const UNQUESTIONED_BYTES = 64 * 1024
const PATIENCE_MS = 2000
/** Batch and record around it, the group's name, generation and leader. */
const FRAME_BYTES = 2048
/** Of one member: lengths, timeouts, and the address of its host. */
const MEMBER_BYTES = 96

export interface MemberAssignment {
  readonly memberId: string
  readonly memberAssignment: Buffer
}

/**
 * Bytes of the record in which Kafka keeps the group (GroupMetadataValue), at most: ids, subscriptions and assignments of
 * all members are in it.
 */
export function groupRecordBytes(members: Joined['members'], assignments: readonly MemberAssignment[]): number {
  let bytes = FRAME_BYTES
  // A member's id begins with its client's.
  for (const { memberId, memberMetadata } of members)
    bytes += MEMBER_BYTES + 2 * memberId.length + memberMetadata.length
  for (const { memberAssignment } of assignments) bytes += memberAssignment.length
  return bytes
}

/**
 * Rejects with ConfigurationError when Kafka cannot keep the group: to an assignment that makes its record too large it
 * answers every member with an unknown error. Where only the leader ends there is one less, and the others go on.
 */
export async function checkGroupRecord(
  cluster: KafkaCluster,
  group: string,
  { members }: Joined,
  assignments: readonly MemberAssignment[],
): Promise<void> {
  const bytes = groupRecordBytes(members, assignments)
  if (bytes <= UNQUESTIONED_BYTES) return
  const most = await maxBytes(cluster)
  if (bytes <= most) return
  throw new ConfigurationError(
    'LOG_MISMATCH',
    `group ${group}: Kafka keeps its ${members.length} members in one record, which takes ${bytes} bytes; ` +
      `${SETTING} of ${TOPIC} is ${most}: raise it, or run fewer processors, or give them shorter INSTANCE_IDs and host names`,
  )
}

/** The default where Kafka does not tell, as to a user who may not describe the topic. */
async function maxBytes(cluster: KafkaCluster): Promise<number> {
  const described = await cluster
    .persist(PATIENCE_MS, undefined, async () => {
      const { requests } = await cluster.anyConnection(LANE)
      return requests.describeConfigs({ resources: [{ type: TOPIC_RESOURCE, name: TOPIC, configNames: [SETTING] }] })
    })
    .catch(() => undefined)
  const [entry] = described?.resources[0]?.configEntries ?? []
  return Number(entry?.configValue ?? DEFAULT_MAX_BYTES)
}
