import { ConfigurationError, RetryableError } from '../contract/errors.ts'
import type { ClaimContext } from './kafka-claim-context.ts'
import type { Sight } from './kafka-hanging.ts'
import { decodePosition } from './kafka-offsets.ts'
import { holdsMore, lastCommit } from './kafka-tail.ts'
import type { Claim, Offset } from './log.ts'

/**
 * Where a claim starts: at the committed offset and its metadata, or, where the changelog tells of a later commit, after
 * that one; for a coordinator that loads its offsets while leaders change may answer with old ones, or with none. `sight`:
 * of the partition since the former holder is fenced, without an open transaction.
 */
export async function startOf(
  context: ClaimContext,
  partition: number,
  { committed: found, stable }: Pick<Sight, 'committed' | 'stable'>,
  signal: AbortSignal,
): Promise<Claim['start']> {
  const { group, identity, names } = context
  if (found === undefined) return uncommitted(context, partition, signal)
  const position = decodePosition(found.metadata)
  // Somebody set the offset with another tool.
  if (position === undefined) return { input: found.offset, changelogEnd: stable }
  for (const topic of ['telemetry', 'status'] as const) {
    if (position[topic] !== identity[topic]) throw recreated(group, names[topic], partition)
  }
  const { changelogEnd } = position
  if (stable < changelogEnd) {
    throw new RetryableError(
      'LOG_UNAVAILABLE',
      `${names.status} ${partition} ends at ${stable}, before the ${changelogEnd} that group ${group} committed: a broker ` +
        'has lost acknowledged records or has not caught up; see that its leader is a replica that was in sync',
    )
  }
  const start = { input: found.offset, changelogEnd }
  // All that follows a commit is its marker.
  if (stable <= changelogEnd + 1) return start
  return (await later(context, partition, changelogEnd, signal)) ?? start
}

/** This is the first claim ever, or the group's offset is gone. */
async function uncommitted(context: ClaimContext, partition: number, signal: AbortSignal): Promise<Claim['start']> {
  const { group, names } = context
  const told = await later(context, partition, 0, signal)
  if (told !== undefined) return told
  if (await holdsMore(context, partition, 0, signal)) {
    throw new ConfigurationError(
      'LOG_MISMATCH',
      `group ${group} has no committed offset for ${names.telemetry} ${partition}, but ${names.status} ${partition} holds ` +
        'records: counting from the start would count twice; set the offset, or delete the changelog topic',
    )
  }
  const telemetry = await context.bounds({ topic: 'telemetry', index: partition })
  const { end } = await context.bounds({ topic: 'status', index: partition })
  return { input: telemetry.start, changelogEnd: end }
}

/** The position after the last commit that the changelog tells of at `from` or after it. */
async function later(
  context: ClaimContext,
  partition: number,
  from: Offset,
  signal: AbortSignal,
): Promise<Claim['start'] | undefined> {
  const told = await lastCommit(context, partition, from, signal)
  if (told === undefined || told.telemetry !== context.identity.telemetry) return undefined
  const { input, changelogEnd } = told
  context.logger.warn({ partition, from, input, changelogEnd }, 'the group forgot a commit; the changelog tells of it')
  return { input, changelogEnd }
}

function recreated(group: string, topic: string, partition: number): ConfigurationError {
  return new ConfigurationError(
    'LOG_MISMATCH',
    `topic ${topic} is not the one that group ${group} committed its offset of partition ${partition} with: it was ` +
      'created anew; to begin anew too, delete the changelog topic and the group (kafka-consumer-groups --delete)',
  )
}
