import type { Logger } from 'pino'
import { ConfigurationError } from '../../../contract/errors.ts'
import { within } from '../../../runtime/pause.ts'
import { CONTROL_LANE, type KafkaCluster } from '../cluster.ts'
import type { Joined } from '../protocol/broker.ts'
import { TOPIC_RESOURCE } from '../topics.ts'

const TOPIC = '__consumer_offsets'
const SETTING = 'max.message.bytes'
/** No topic is meant to take less: up to so much nobody is asked. */
const UNQUESTIONED_BYTES = 64 * 1024
/** The group waits for its leader meanwhile, which sends no heartbeat. */
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
 * Rejects with ConfigurationError when Kafka says that it cannot keep the group: to an assignment that makes its record too
 * large it answers every member with an unknown error. Where only the leader ends there is one less, and the others go on.
 */
export async function checkGroupRecord(
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

/** Undefined where Kafka does not tell: by then, or to a user who may not describe the topic. */
async function maxBytes(cluster: KafkaCluster): Promise<number | undefined> {
  const resources = [{ type: TOPIC_RESOURCE, name: TOPIC, configNames: [SETTING] }]
  const described = cluster
    .persist(PATIENCE_MS, undefined, async () => {
      const { requests } = await cluster.anyConnection(CONTROL_LANE)
      return requests.describeConfigs({ resources })
    })
    .catch(() => undefined)
  const told = await within(described, PATIENCE_MS, () => undefined)
  const value = told?.resources[0]?.configEntries[0]?.configValue
  return value === undefined ? undefined : Number(value)
}
