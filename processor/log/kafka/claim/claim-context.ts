import type { Logger } from 'pino'
import type { Log, LogIdentity, Topic } from '../../log.ts'
import { type KafkaCluster, TRANSACTION_COORDINATOR } from '../cluster.ts'
import { FETCH_LANES } from '../fetcher.ts'
import { KafkaWindows } from '../protocol/produce.ts'
import type { TopicNames } from '../topics.ts'
import type { Ends } from './bounds.ts'

/** How long a claim or a commit is tried while Kafka does not answer or moves its leaders. */
export const CLAIM_TIMEOUT_MS = 10_000
/** What the first commit of a partition holds: of eight, 2 MiB are under way. A commit of a whole batch has 0.7 MiB, mostly. */
const FIRST_COMMIT_BYTES = 256 * 1024
/** More than any commit comes to, bytes. */
const MAX_COMMIT_BYTES = 16 * 1024 * 1024
/**
 * Commits whose records take longer to be written become smaller, ms. The other steps of a commit wait behind the records,
 * its own and those of others on the lane: each is given up after REQUEST_TIMEOUT_MS, and a transaction is aborted after
 * TRANSACTION_TIMEOUT_MS, which ends the claim, and the work is done again.
 */
const SLOW_COMMIT_MS = 2000
/** Requests for different partitions overlap on as many connections. */
const LANES = 4

/** What claims work with. */
export interface ClaimContext {
  readonly cluster: KafkaCluster
  readonly names: TopicNames
  readonly group: string
  readonly identity: LogIdentity
  readonly logger: Logger
  /** Of commits, by partition: what is known of it outlives its claims. */
  readonly windows: KafkaWindows
  readonly bounds: Log['bounds']
  readonly follow: Log['follow']
  /** Of the leader that wrote what was read last of a partition of telemetry; undefined when nothing was. */
  readEpoch(partition: number): number | undefined
  /** Of one partition of each of `topics`. */
  ends(topics: readonly Topic[], partition: number): Promise<Ends[]>
}

export function commitWindows(): KafkaWindows {
  return new KafkaWindows(FIRST_COMMIT_BYTES, MAX_COMMIT_BYTES, SLOW_COMMIT_MS)
}

/**
 * Makes connections that claims and their readers will ask for, so that they need not wait for them. Of the first
 * partitions only: more leaders than that are met as they come. Rejects when one cannot be made.
 */
export async function connectLanes({ cluster, names, group, identity }: ClaimContext): Promise<void> {
  const first = Array.from({ length: Math.min(LANES, identity.partitions) }, (_, partition) => partition)
  const made = first.flatMap((partition) => {
    const lanes = [laneOf(partition), ...FETCH_LANES]
    const leader = cluster.leader(names.status, partition)
    return [
      cluster.coordinator(laneOf(partition), TRANSACTION_COORDINATOR, transactionalId(group, partition)),
      ...lanes.map(async (lane) => cluster.connection(lane, await leader)),
    ]
  })
  await Promise.all(made)
}

export function transactionalId(group: string, partition: number): string {
  return `${group}-${partition}`
}

export function laneOf(partition: number): string {
  return `partition-${partition % LANES}`
}
