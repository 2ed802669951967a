import { ConfigurationError, RetryableError, repartitioned } from '../../../contract/errors.ts'
import { within } from '../../../runtime/pause.ts'
import type { Claim, Offset } from '../../log.ts'
import { CONTROL_LANE, GROUP_COORDINATOR } from '../cluster.ts'
import { epochEnd, fetchAllCommitted, fetchCommitted } from '../protocol/offsets.ts'
import { CLAIM_TIMEOUT_MS, type ClaimContext, laneOf } from './claim-context.ts'
import type { PartitionState } from './hanging.ts'
import {
  type CommittedPosition,
  decodePosition,
  hasRecordsFrom,
  lastRecordedCommit,
  type RecordedCommit,
} from './position.ts'

/** How long a claim waits for the bounds of telemetry, ms. */
const KEPT_WITHIN_MS = 500

/** How long opening the log waits for the group's committed offsets, ms. */
const COMMITTED_WITHIN_MS = 1_000

type Kept = Promise<{ readonly start: Offset; readonly end: Offset }>

/**
 * Where a claim starts. `state` was read after the former holder was fenced, and no transaction is open; `kept` are
 * the bounds of telemetry. Rejects with RetryableError for what holds up this partition alone.
 */
export async function startOf(
  context: ClaimContext,
  partition: number,
  state: Pick<PartitionState, 'committed' | 'stable'>,
  kept: Kept,
  signal: AbortSignal,
): Promise<Claim['start']> {
  // A claim does not wait long for the leader of telemetry: reading finds out about retention too.
  const told = Promise.all([within(kept, KEPT_WITHIN_MS, () => undefined), lostFrom(context, partition, state, signal)])
  told.catch(() => {})
  const start = await committedStart(context, partition, state, kept, signal)
  const [bounds, lost] = await told
  if (bounds !== undefined && start.input < bounds.start) throw overtaken(context, partition, start.input, bounds.start)
  if (lost !== undefined) throw truncated(context, partition, start.input, lost)
  if (bounds !== undefined && start.input > bounds.end) throw cutOff(context, partition, start.input, bounds.end)
  return start
}

/**
 * The first offset before the committed one at which other records stand now; undefined when nothing was lost. Rejects
 * with RetryableError when no leader answers: once new records stand in the lost ones' place nobody could find out.
 */
async function lostFrom(
  { cluster, names }: ClaimContext,
  partition: number,
  { committed }: Pick<PartitionState, 'committed'>,
  signal: AbortSignal,
): Promise<Offset | undefined> {
  const epoch = committed === undefined ? undefined : decodePosition(committed.metadata)?.epoch
  if (committed === undefined || epoch === undefined) return undefined
  const end = await cluster.retry(CLAIM_TIMEOUT_MS, signal, async () => {
    const leader = await cluster.leader(names.telemetry, partition)
    return epochEnd(await cluster.connection(laneOf(partition), leader), names.telemetry, partition, epoch)
  })
  return end !== undefined && end < committed.offset ? end : undefined
}

/**
 * The committed offset and its metadata, or the later commit that the changelog records. A coordinator that loads its
 * offsets while leaders change can answer with an old offset, or with none.
 */
async function committedStart(
  context: ClaimContext,
  partition: number,
  { committed: found, stable }: Pick<PartitionState, 'committed' | 'stable'>,
  kept: Kept,
  signal: AbortSignal,
): Promise<Claim['start']> {
  const { group, identity, names } = context
  if (found === undefined) return uncommitted(context, partition, kept, signal)
  const position = decodePosition(found.metadata)
  if (position === undefined) {
    const what = 'the offset was set with another tool: records from there on that were counted before count once more'
    context.logger.warn({ partition, input: found.offset }, what)
    return { input: found.offset, changelogEnd: stable }
  }
  for (const topic of ['telemetry', 'status'] as const) {
    if (position[topic] !== identity[topic]) throw recreated(group, names[topic], partition)
  }
  refuseOtherCount(context, position)
  const { changelogEnd } = position
  if (stable < changelogEnd) {
    throw new RetryableError(
      'LOG_UNAVAILABLE',
      `${names.status} ${partition} ends at ${stable}, before the ${changelogEnd} that group ${group} committed: ${LOST} ` +
        `without what is lost, ${reset(context, partition, '--to-current')}`,
    )
  }
  const start = { input: found.offset, changelogEnd }
  // A commit is followed by its marker alone.
  if (stable <= changelogEnd + 1) return start
  return (await later(context, partition, changelogEnd, signal)) ?? start
}

function refuseOtherCount({ group, names, identity }: Named, { partitions }: CommittedPosition) {
  if (partitions === identity.partitions) return
  const when = `when group ${group} committed to it, and has ${identity.partitions} now`
  throw repartitioned(`topic ${names.telemetry} had ${partitions} partitions ${when}`)
}

type Named = Pick<ClaimContext, 'group' | 'names' | 'identity'>

/**
 * Refuses a number of partitions other than the group has worked with: devices would go on in partitions that nobody
 * processes. This runs without a claim; when the group does not answer, claims find out.
 */
export async function refuseRepartitioned(context: Named & Pick<ClaimContext, 'cluster' | 'logger'>): Promise<void> {
  const { cluster, group, names, identity, logger } = context
  const telling = cluster.retry(COMMITTED_WITHIN_MS, undefined, async () => {
    const coordinator = await cluster.coordinator(CONTROL_LANE, GROUP_COORDINATOR, group)
    return fetchAllCommitted(coordinator, group, names.telemetry)
  })
  const committed = await within(telling, COMMITTED_WITHIN_MS, () => undefined).catch((error: unknown) => {
    logger.debug({ err: error, group }, 'the group does not tell what it has committed')
    return undefined
  })
  for (const { metadata } of committed ?? []) {
    const position = decodePosition(metadata)
    if (position?.telemetry === identity.telemetry) refuseOtherCount(context, position)
  }
}

/** Either this is the first claim ever, or the group's offset is gone. */
async function uncommitted(
  context: ClaimContext,
  partition: number,
  kept: Kept,
  signal: AbortSignal,
): Promise<Claim['start']> {
  const { group, names } = context
  const told = await later(context, partition, 0, signal)
  if (told !== undefined) return told
  if (await hasRecordsFrom(context, partition, 0, signal)) {
    throw new ConfigurationError(
      'LOG_MISMATCH',
      `group ${group} has no committed offset for ${names.telemetry} ${partition}, but ${names.status} ${partition} holds ` +
        'records: counting from the start would count twice; set the offset, or delete the changelog topic',
    )
  }
  const { end } = await context.bounds({ topic: 'status', index: partition })
  return { input: (await kept).start, changelogEnd: end }
}

/** The position after the last commit that the changelog records at `from` or after it. */
async function later(
  context: ClaimContext,
  partition: number,
  from: Offset,
  signal: AbortSignal,
): Promise<Claim['start'] | undefined> {
  const told = await lastRecordedCommit(context, partition, from, signal)
  if (told === undefined || told.telemetry !== context.identity.telemetry) return undefined
  await refuseOtherGroup(context, partition, told, signal)
  const { input, changelogEnd } = told
  context.logger.warn({ partition, from, input, changelogEnd }, 'the group forgot a commit; the changelog tells of it')
  return { input, changelogEnd }
}

/**
 * Claims of two groups do not fence each other: both would count every record and write to the one changelog. Kafka
 * deletes no group that has members, so a group that is gone has no processors.
 */
async function refuseOtherGroup(
  { cluster, group, names }: ClaimContext,
  partition: number,
  { group: other }: RecordedCommit,
  signal: AbortSignal,
): Promise<void> {
  if (other === group) return
  const committed = await cluster.retry(CLAIM_TIMEOUT_MS, signal, async () => {
    const coordinator = await cluster.coordinator(laneOf(partition), GROUP_COORDINATOR, other)
    return fetchCommitted(coordinator, other, names.telemetry, partition, false)
  })
  if (committed === undefined) return
  throw new ConfigurationError(
    'LOG_MISMATCH',
    `group ${other} works on ${names.telemetry}, and this processor is of group ${group}: both would count each record; ` +
      `set GROUP=${other}; or, to go on as ${group} where the other ended, stop the processors of ${other}, and delete ` +
      `it (kafka-consumer-groups --delete --group ${other})`,
  )
}

function overtaken(context: ClaimContext, partition: number, input: Offset, oldest: Offset): RetryableError {
  const { group, names } = context
  return new RetryableError(
    'OFFSET_OUT_OF_RANGE',
    `${names.telemetry} ${partition}: retention removed the offsets ${input} to ${oldest - 1} before group ${group} had ` +
      `processed them. To go on with what is kept, ${reset(context, partition, '--to-earliest')}`,
  )
}

const LOST =
  'a broker has lost acknowledged records or has not caught up; see that its leader is a replica that was in sync. To go on'

/** New records stand at `lost` and after it, and nobody has processed them. */
function truncated(context: ClaimContext, partition: number, input: Offset, lost: Offset): RetryableError {
  const { group, names } = context
  return new RetryableError(
    'OFFSET_OUT_OF_RANGE',
    `${names.telemetry} ${partition}: what stands at ${lost} and after it is not what group ${group} has processed before ` +
      `${input}: ${LOST} with what is there now, ${reset(context, partition, `--to-offset ${lost}`)}`,
  )
}

function cutOff(context: ClaimContext, partition: number, input: Offset, end: Offset): RetryableError {
  const { group, names } = context
  return new RetryableError(
    'OFFSET_OUT_OF_RANGE',
    `${names.telemetry} ${partition} ends at ${end}, before the ${input} up to which group ${group} has processed it: ` +
      `${LOST} with what comes after that end, ${reset(context, partition, '--to-latest')}`,
  )
}

/** An offset set by this tool has no metadata, and is obeyed. Kafka resets none while the group has members. */
function reset({ group, names }: ClaimContext, partition: number, to: string): string {
  const topic = `${names.telemetry}:${partition}`
  return `stop all processors, run kafka-consumer-groups --group ${group} --topic ${topic} --reset-offsets ${to} --execute, and start them again`
}

function recreated(group: string, topic: string, partition: number): ConfigurationError {
  return new ConfigurationError(
    'LOG_MISMATCH',
    `topic ${topic} is not the one that group ${group} committed its offset of partition ${partition} with: it was ` +
      'created anew; to begin anew too, delete the changelog topic and the group (kafka-consumer-groups --delete)',
  )
}
