import type { Logger } from 'pino'
import type { Log, LogIdentity, Topic } from '../../log.ts'
import { type KafkaCluster, TRANSACTION_COORDINATOR } from '../cluster.ts'
import { FETCH_LANES } from '../fetcher.ts'
import { KafkaWindows } from '../protocol/produce.ts'
import type { TopicNames } from '../topics.ts'
import type { Ends } from './bounds.ts'

/** How long a claim or a commit is tried while Kafka does not answer or moves its leaders. */
export const CLAIM_TIMEOUT_MS = 10_000
/** Bytes of a partition's first commit, before its link is known. A commit of a whole batch mostly has 0.7 MiB. */
const FIRST_COMMIT_BYTES = 256 * 1024
/** Bytes that no commit reaches. */
const MAX_COMMIT_BYTES = 16 * 1024 * 1024
/**
 * Commits become smaller while writing their records takes longer than this, ms. The other steps of a commit wait
 * behind the records on the same lane; each is given up after REQUEST_TIMEOUT_MS. Kafka aborts the transaction after
 * TRANSACTION_TIMEOUT_MS, which ends the claim, and the work is done again.
 */
const SLOW_COMMIT_MS = 2000
/** Partitions share this many connections to each broker, so that their requests overlap. */
const LANES = 4

export interface ClaimContext {
  readonly cluster: KafkaCluster
  readonly names: TopicNames
  readonly group: string
  readonly identity: LogIdentity
  readonly logger: Logger
  /** How large commits should be, by partition. It outlives the claims. */
  readonly windows: KafkaWindows
  readonly bounds: Log['bounds']
  readonly follow: Log['follow']
  /** Epoch of the leader that wrote the record of telemetry that was read last; undefined when none was read. */
  readEpoch(partition: number): number | undefined
  /** The ends of one partition of each of `topics`. */
  ends(topics: readonly Topic[], partition: number): Promise<Ends[]>
}

export function commitWindows(): KafkaWindows {
  return new KafkaWindows(FIRST_COMMIT_BYTES, MAX_COMMIT_BYTES, SLOW_COMMIT_MS)
}

/**
 * Opens the connections that claims and their readers will need, for the first partitions: leaders of others are
 * connected to as they come. Rejects when one cannot be opened.
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
