import { ConfigurationError } from '../contract/errors.ts'
import { type ClaimContext, laneOf, PATIENCE_MS } from './kafka-claim-context.ts'
import { GROUP_COORDINATOR } from './kafka-cluster.ts'
import { decodePosition, fetchCommitted } from './kafka-offsets.ts'
import type { Claim } from './log.ts'

/** Where the partition stands, from the committed offset and its metadata. */
export async function committed(
  context: ClaimContext,
  partition: number,
  signal: AbortSignal,
): Promise<Claim['start']> {
  const { cluster, group, identity, names } = context
  const found = await cluster.persist(PATIENCE_MS, signal, async () => {
    const connection = await cluster.coordinator(laneOf(partition), GROUP_COORDINATOR, group)
    return fetchCommitted(connection, group, names.telemetry, partition)
  })
  const position = found === undefined ? undefined : decodePosition(found.metadata)
  if (found !== undefined && position !== undefined) {
    for (const topic of ['telemetry', 'status'] as const) {
      if (position[topic] !== identity[topic]) throw recreated(group, names[topic], partition)
    }
    return { input: found.offset, changelogEnd: position.changelogEnd }
  }
  // Somebody set the offset with another tool, or this is the first claim ever. Nobody else writes the changelog now.
  const { end, empty } = await context.changelog(partition)
  if (found !== undefined) return { input: found.offset, changelogEnd: end }
  if (!empty) {
    throw new ConfigurationError(
      'LOG_MISMATCH',
      `group ${group} has no committed offset for ${names.telemetry} ${partition}, but ${names.status} ${partition} holds ` +
        'records: counting from the start would count twice; set the offset, or delete the changelog topic',
    )
  }
  return { input: await context.oldest(partition), changelogEnd: end }
}

function recreated(group: string, topic: string, partition: number): ConfigurationError {
  return new ConfigurationError(
    'LOG_MISMATCH',
    `topic ${topic} is not the one that group ${group} committed its offset of partition ${partition} with: it was ` +
      'created anew; to begin anew too, delete the changelog topic and the group (kafka-consumer-groups --delete)',
  )
}
