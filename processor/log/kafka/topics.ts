import type { Logger } from 'pino'
import { ConfigurationError, RetryableError, reasonOf, repartitioned } from '../../contract/errors.ts'
import { MAX_RECORD_BYTES } from '../../contract/record.ts'
import { pause } from '../../runtime/pause.ts'
import type { Log, Topic } from '../log.ts'
import { CONTROL_LANE, type KafkaCluster } from './cluster.ts'
import type { TopicRequest } from './protocol/broker.ts'
import { typeOf } from './protocol/errors.ts'
import type { Metadata, TopicMetadata } from './protocol/metadata.ts'
import { MAX_BATCH_BYTES } from './protocol/record-batch.ts'

const OPEN_TIMEOUT_MS = 30_000
const CREATE_TIMEOUT_MS = 5000
const LEADER_POLL_MS = 50
/** The resource type TOPIC of DescribeConfigs. */
export const TOPIC_RESOURCE = 2
const BROKER_DEFAULT = -1
/** Limits of a record's time against the broker's (KIP-937). Kafka 3 has the older limit beside them. */
const TIME_LIMITS = ['message.timestamp.before.max.ms', 'message.timestamp.after.max.ms'] as const
const OLD_TIME_LIMIT = 'message.timestamp.difference.max.ms'
const NO_LIMIT = '9223372036854775807'
/** A full batch and one largest record. */
const MAX_MESSAGE_BYTES = MAX_BATCH_BYTES + MAX_RECORD_BYTES

export interface TopicOptions {
  /** Partitions of a new topic; an existing one keeps its own. */
  readonly partitions: number
  /** Replicas of each partition. Undefined: the brokers' default. */
  readonly replication?: number | undefined
  /** How long a new topic waits for as many brokers as it needs replicas, ms. Default 30 s. */
  readonly brokersWithinMs?: number
  /** min.insync.replicas. Undefined: the brokers' default. */
  readonly minInSyncReplicas?: number | undefined
}

export type TopicNames = Readonly<Record<Topic, string>>

export function topicNames(prefix: string): TopicNames {
  return { telemetry: `${prefix}.telemetry`, status: `${prefix}.status`, 'dead-letters': `${prefix}.dead-letters` }
}

/**
 * Creates missing topics and checks existing ones. Throws ConfigurationError LOG_MISMATCH, with topic and setting,
 * rather than work on a log that would lose or mix up records.
 */
export async function openTopics(
  cluster: KafkaCluster,
  names: TopicNames,
  options: TopicOptions,
  logger: Logger,
): Promise<Pick<Log, 'identity' | 'deleteRetentionMs'>> {
  let metadata = await cluster.retry(OPEN_TIMEOUT_MS, undefined, () => cluster.probe())
  for (const topic of ['telemetry', 'status', 'dead-letters'] as const) {
    if (metadata.topics.has(names[topic])) continue
    // The changelog must match an existing telemetry topic.
    const partitions = metadata.topics.get(names.telemetry)?.leaders.length ?? options.partitions
    await create(
      cluster,
      request(topic, names, { ...options, partitions }),
      options.brokersWithinMs ?? OPEN_TIMEOUT_MS,
      logger,
    )
    metadata = await ready(cluster, names[topic], metadata)
  }
  for (const name of Object.values(names)) metadata = await ready(cluster, name, metadata)
  const telemetry = metadata.topics.get(names.telemetry) as TopicMetadata
  const partitions = telemetry.leaders.length
  const counts = Object.values(names).map((name) => [name, metadata.topics.get(name)?.leaders.length] as const)
  if (counts.some(([, count]) => count !== partitions)) {
    throw repartitioned(`partitions: ${counts.map(([name, count]) => `topic ${name} has ${count}`).join(', ')}`)
  }
  const { deleteRetentionMs } = await verify(cluster, names, options, metadata, logger)
  const status = metadata.topics.get(names.status)?.id ?? ''
  return { identity: { cluster: metadata.cluster, telemetry: telemetry.id, status, partitions }, deleteRetentionMs }
}

function request(topic: Topic, names: TopicNames, options: TopicOptions): TopicRequest {
  const config: Record<string, string> = {
    'cleanup.policy': topic === 'status' ? 'compact' : 'delete',
    'max.message.bytes': String(MAX_MESSAGE_BYTES),
    // Times come from devices and gateways; the fold judges absurd ones, the log must not refuse them.
    'message.timestamp.type': 'CreateTime',
  }
  for (const limit of TIME_LIMITS) config[limit] = NO_LIMIT
  if (options.minInSyncReplicas !== undefined) config['min.insync.replicas'] = String(options.minInSyncReplicas)
  return {
    topic: names[topic],
    numPartitions: options.partitions,
    replicationFactor: options.replication ?? BROKER_DEFAULT,
    configEntries: Object.entries(config).map(([name, value]) => ({ name, value })),
  }
}

async function create(cluster: KafkaCluster, topic: TopicRequest, patienceMs: number, logger: Logger): Promise<void> {
  let waiting = false
  try {
    await cluster.retry(patienceMs, undefined, async () => {
      const { requests } = await cluster.anyConnection(CONTROL_LANE)
      await requests.createTopics({ topics: [topic], timeout: CREATE_TIMEOUT_MS }).catch(async (wrapped: unknown) => {
        const error = first(wrapped)
        if (typeOf(error) !== 'INVALID_REPLICATION_FACTOR') throw error
        // Other brokers may still be starting.
        const scarce = tooFew((await cluster.metadata()).nodes.size, topic, error)
        if (!waiting) logger.warn({ err: scarce, topic: topic.topic }, 'waiting for more brokers')
        waiting = true
        throw scarce
      })
    })
    logger.info({ topic: topic.topic, partitions: topic.numPartitions }, 'topic created')
  } catch (error) {
    // Another process created it first.
    if (typeOf(error) === 'TOPIC_ALREADY_EXISTS') return
    const old = typeOf(error) === 'INVALID_CONFIG' ? ' (it takes Kafka 3.6 or newer)' : ''
    const message = `topic ${topic.topic} cannot be created: ${reasonOf(error)}${old}`
    throw new ConfigurationError('LOG_MISMATCH', message, error)
  }
}

function tooFew(live: number, { replicationFactor }: TopicRequest, cause: unknown): RetryableError {
  const brokers = live === 1 ? '1 broker is live' : `${live} brokers are live`
  const wanted =
    replicationFactor === BROKER_DEFAULT
      ? 'the copies that default.replication.factor of the brokers asks for'
      : `the ${replicationFactor} copies that KAFKA_REPLICATION asks for`
  const message = `${brokers}, too few for ${wanted}; start more brokers, or set KAFKA_REPLICATION to at most ${live}`
  return new RetryableError('LOG_UNAVAILABLE', message, cause)
}

/** kafkajs wraps the errors of all topics in one. */
function first(error: unknown): unknown {
  const errors = error instanceof Error && 'errors' in error ? error.errors : undefined
  return Array.isArray(errors) && errors.length > 0 ? errors[0] : error
}

/** Resolves once every partition of the topic has a leader, with `known` or newer metadata. */
async function ready(cluster: KafkaCluster, name: string, known: Metadata): Promise<Metadata> {
  const deadline = performance.now() + OPEN_TIMEOUT_MS
  for (let metadata = known; ; ) {
    const leaders = metadata.topics.get(name)?.leaders ?? []
    if (leaders.length > 0 && leaders.every((leader) => leader >= 0)) return metadata
    if (performance.now() > deadline) {
      throw new ConfigurationError('LOG_MISMATCH', `topic ${name}: partitions without a leader; see to its brokers`)
    }
    if (metadata !== known) await pause(LEADER_POLL_MS)
    metadata = await cluster.retry(OPEN_TIMEOUT_MS, undefined, () => cluster.refresh())
  }
}

async function verify(
  cluster: KafkaCluster,
  names: TopicNames,
  options: TopicOptions,
  metadata: Metadata,
  logger: Logger,
): Promise<{ deleteRetentionMs: number }> {
  const resources = Object.values(names).map((name) => ({ type: TOPIC_RESOURCE, name }))
  const described = await cluster.retry(OPEN_TIMEOUT_MS, undefined, async () => {
    const { requests } = await cluster.anyConnection(CONTROL_LANE)
    return requests.describeConfigs({ resources })
  })
  let deleteRetentionMs = Number.NaN
  const exposed: { topic: string; replicas: number; minInSyncReplicas: number }[] = []
  for (const topic of ['telemetry', 'status', 'dead-letters'] as const) {
    const name = names[topic]
    const entries = described.resources.find(({ resourceName }) => resourceName === name)?.configEntries ?? []
    const config = new Map(entries.map(({ configName, configValue }) => [configName, configValue ?? '']))
    const expect = (setting: string, value: string): void => {
      const found = config.get(setting) ?? 'unknown'
      if (found !== value) mismatch(name, setting, found, value)
    }
    expect('cleanup.policy', topic === 'status' ? 'compact' : 'delete')
    expect('message.timestamp.type', 'CreateTime')
    // Statuses and dead letters have the times of their records: a refused one would stop its partition.
    for (const limit of TIME_LIMITS) expect(limit, NO_LIMIT)
    if (config.has(OLD_TIME_LIMIT)) expect(OLD_TIME_LIMIT, NO_LIMIT)
    if (Number(config.get('max.message.bytes')) < MAX_MESSAGE_BYTES) {
      mismatch(name, 'max.message.bytes', `${config.get('max.message.bytes')}`, `${MAX_MESSAGE_BYTES} or more`)
    }
    if (options.minInSyncReplicas !== undefined) expect('min.insync.replicas', String(options.minInSyncReplicas))
    const replicas = metadata.topics.get(name)?.replicas ?? 0
    if (options.replication !== undefined && replicas !== options.replication) {
      mismatch(name, 'replication factor', String(replicas), String(options.replication))
    }
    const inSync = Number(config.get('min.insync.replicas'))
    if (inSync > replicas) {
      mismatch(name, 'min.insync.replicas', String(inSync), `at most ${replicas}, as many as it has replicas`)
    }
    // With one broker, no setting gives a second disk.
    if (inSync < 2 && metadata.nodes.size > 1) exposed.push({ topic: name, replicas, minInSyncReplicas: inSync })
    if (topic === 'status') deleteRetentionMs = Number(config.get('delete.retention.ms'))
  }
  if (exposed.length > 0) {
    logger.warn(
      { brokers: metadata.nodes.size, topics: exposed },
      'what is acknowledged may be on one broker alone, and lost with its disk: have 3 replicas, and min.insync.replicas 2',
    )
  }
  if (!(deleteRetentionMs >= 0)) mismatch(names.status, 'delete.retention.ms', 'unknown', 'told by the brokers')
  return { deleteRetentionMs }
}

function mismatch(topic: string, setting: string, found: string, wanted: string): never {
  throw new ConfigurationError(
    'LOG_MISMATCH',
    `topic ${topic}: ${setting} is ${found}, must be ${wanted}; change the topic, or use another TOPIC_PREFIX`,
  )
}
