import type { Logger } from 'pino'
import type { KafkaCluster } from './kafka-cluster.ts'
import type { TopicNames } from './kafka-topics.ts'
import type { Log, LogIdentity, Offset, Topic } from './log.ts'

/** How long a claim or a commit is tried while Kafka does not answer or moves its leaders. */
export const PATIENCE_MS = 10_000
/** Requests for different partitions overlap on as many connections. */
const LANES = 4

/** What claims work with. */
export interface ClaimContext {
  readonly cluster: KafkaCluster
  readonly names: TopicNames
  readonly group: string
  readonly identity: LogIdentity
  readonly logger: Logger
  readonly bounds: Log['bounds']
  readonly follow: Log['follow']
  /** `end`: offset after the last record; `stable`: after the last before which all transactions are decided. */
  ends(topic: Topic, partition: number): Promise<{ stable: Offset; end: Offset }>
}

export function laneOf(partition: number): string {
  return `claim-${partition % LANES}`
}
