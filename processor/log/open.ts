import { join } from 'node:path'
import type { Logger } from 'pino'
import { Gauge, type Registry } from 'prom-client'
import { ConfigurationError, RetryableError } from '../contract/errors.ts'
import { type Configuration, contentsOf, DEFAULT_PARTITIONS, LOG_FOLDER } from '../runtime/environment.ts'
import type { EmbeddedLog } from './embedded/embedded-log.ts'
import type { KafkaLog } from './kafka/kafka-log.ts'
import type { KafkaSecurity } from './kafka/protocol/broker.ts'

/**
 * The log that the environment asks for: Kafka's when KAFKA_BROKERS is set, otherwise the one in DATA_DIR. Rejects with
 * ConfigurationError when it cannot be had; Kafka is waited for, for half a minute, as it may be starting too.
 */
export async function openLog(
  configuration: Configuration,
  logger: Logger,
  registry: Registry,
): Promise<EmbeddedLog | KafkaLog> {
  const log = await open(configuration, logger, registry)
  const help = 'Partitions of the log: as many owners should be running'
  new Gauge({ name: 'tidemark_log_partitions', help, registers: [registry] }).set(log.identity.partitions)
  return log
}

async function open(configuration: Configuration, logger: Logger, registry: Registry): Promise<EmbeddedLog | KafkaLog> {
  const { DATA_DIR, KAFKA_BROKERS, PARTITIONS: partitions, STANDBYS: standbys } = configuration
  if (KAFKA_BROKERS === undefined) {
    const { EmbeddedLog } = await import('./embedded/embedded-log.ts')
    const folder = join(DATA_DIR, LOG_FOLDER)
    return EmbeddedLog.open({ folder, partitions, standbys, logger, registry, now: Date.now })
  }
  const { KafkaLog } = await import('./kafka/kafka-log.ts')
  logger.info({ brokers: KAFKA_BROKERS }, 'connecting to Kafka')
  try {
    const log = await KafkaLog.open({
      brokers: KAFKA_BROKERS.split(','),
      prefix: configuration.TOPIC_PREFIX,
      group: configuration.GROUP,
      partitions,
      standbys,
      zone: configuration.ZONE,
      replication: configuration.KAFKA_REPLICATION,
      minInSyncReplicas: configuration.KAFKA_MIN_INSYNC_REPLICAS,
      security: await security(configuration),
      logger,
      registry,
    })
    const there = log.identity.partitions
    if (partitions !== there && partitions !== DEFAULT_PARTITIONS) {
      logger.warn(
        `PARTITIONS=${partitions}, and the topics have ${there}, which they keep: set it where they are made first`,
      )
    }
    return log
  } catch (error) {
    if (!(error instanceof RetryableError)) throw error
    // It tells its way out itself.
    if (error.code === 'BROKERS_UNREACHABLE') throw new ConfigurationError(error.code, error.message, error)
    // A broker that takes only TLS closes the connection of a client without, and tells nothing.
    const tls =
      configuration.KAFKA_SSL === 'true' ? 'takes no TLS, unset KAFKA_SSL' : 'takes only TLS, set KAFKA_SSL=true'
    const message = `${error.message}; start Kafka, or correct KAFKA_BROKERS; if it ${tls}`
    throw new ConfigurationError('LOG_UNAVAILABLE', message, error)
  }
}

async function security(configuration: Configuration): Promise<KafkaSecurity> {
  const { KAFKA_SSL, KAFKA_CA, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD } = configuration
  const tls = KAFKA_CA === undefined ? KAFKA_SSL === 'true' : { ca: await contentsOf('KAFKA_CA', KAFKA_CA) }
  if (KAFKA_SASL_MECHANISM === undefined) return { tls }
  const mechanism = KAFKA_SASL_MECHANISM.toLowerCase() as NonNullable<KafkaSecurity['sasl']>['mechanism']
  return { tls, sasl: { mechanism, username: KAFKA_SASL_USERNAME ?? '', password: KAFKA_SASL_PASSWORD ?? '' } }
}
