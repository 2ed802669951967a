import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { RetryableError } from '../../contract/errors.ts'
import type { OwnerMap } from '../../contract/query.ts'
import type { Batch, BatchLimits, Log, LogIdentity, Member, NewRecord, Offset, Partition, Position } from '../log.ts'
import { KafkaAppender } from './appender.ts'
import { KafkaBounds } from './claim/bounds.ts'
import { type ClaimContext, commitWindows } from './claim/claim-context.ts'
import { refuseRepartitioned } from './claim/start.ts'
import { KafkaCluster } from './cluster.ts'
import { KafkaFetcher } from './fetcher.ts'
import { KafkaGroup } from './group/group.ts'
import { KafkaHealth, KafkaMetrics } from './health.ts'
import { type KafkaSecurity, Network } from './protocol/broker.ts'
import { asTidemark } from './protocol/errors.ts'
import { openTopics, type TopicNames, type TopicOptions, topicNames } from './topics.ts'

/** Bytes of queued appends beyond which append rejects with LOG_UNAVAILABLE. */
const MAX_QUEUED_BYTES = 64 * 1024 * 1024

export interface KafkaLogOptions extends TopicOptions {
  /** host:port of some brokers; they tell the others. */
  readonly brokers: readonly string[]
  readonly prefix: string
  readonly group: string
  /** Copies beside each owner's. Default 1. */
  readonly standbys?: number
  /** Failure domain of this process (a host, a rack): standbys go to another one where there is one. */
  readonly zone?: string | undefined
  readonly security?: KafkaSecurity
  /** Time limit of an append, ms: well under the keepalives of devices. Default 5 s. */
  readonly appendTimeoutMs?: number
  /** Session timeout, ms: after this long without a heartbeat the group drops a member. Default 10 s. */
  readonly sessionTimeoutMs?: number
  /**
   * How often the load of the partitions is measured, ms. Default 30 s; load that stays uneven four times is evened.
   */
  readonly balanceMs?: number
  readonly logger: Logger
  readonly registry: Registry
}

/**
 * The log on a Kafka cluster. append and commit keep values by reference for a while: callers must not change them.
 * Values given to readers are views of larger buffers.
 */
export class KafkaLog implements Log {
  readonly identity: LogIdentity
  readonly deleteRetentionMs: number
  /** A commit is a transaction of five requests. */
  readonly maxGatherMs = 100
  readonly #names: TopicNames
  readonly #network: Network
  readonly #health: KafkaHealth
  readonly #appender: KafkaAppender
  readonly #fetcher: KafkaFetcher
  readonly #bounds: KafkaBounds
  readonly #group: KafkaGroup
  readonly #joins = new Set<Promise<void>>()
  readonly #closing = new AbortController()
  readonly #probing: Promise<void>
  #closed: Promise<void> | undefined

  /**
   * Creates missing topics. Rejects with ConfigurationError LOG_MISMATCH when existing topics cannot carry the log,
   * INVALID_CONFIGURATION when Kafka refuses the credentials; with RetryableError when no broker answers.
   */
  static async open(options: KafkaLogOptions): Promise<KafkaLog> {
    const { brokers, prefix, security = {}, logger } = options
    const names = topicNames(prefix)
    const network = new Network('tidemark', security, logger)
    const cluster = new KafkaCluster(brokers, Object.values(names), network, logger)
    try {
      const opened = await openTopics(cluster, names, options, logger)
      await refuseRepartitioned({ cluster, group: options.group, names, identity: opened.identity, logger })
      return new KafkaLog(options, names, network, cluster, opened)
    } catch (error) {
      network.close()
      throw asTidemark(error, `Kafka at ${brokers.join(',')} cannot be used`)
    }
  }

  private constructor(
    options: KafkaLogOptions,
    names: TopicNames,
    network: Network,
    cluster: KafkaCluster,
    { identity, deleteRetentionMs }: Pick<Log, 'identity' | 'deleteRetentionMs'>,
  ) {
    const { group, logger } = options
    const metrics = new KafkaMetrics(options.registry)
    this.identity = identity
    for (const topic of ['telemetry', 'status'] as const)
      cluster.ids.hold(names[topic], identity[topic], identity.partitions)
    this.deleteRetentionMs = deleteRetentionMs
    this.#names = names
    this.#network = network
    this.#health = new KafkaHealth({ topic: names.telemetry, partitions: identity.partitions }, logger, metrics)
    this.#appender = new KafkaAppender(cluster, this.#health, {
      maxQueuedBytes: MAX_QUEUED_BYTES,
      timeoutMs: options.appendTimeoutMs ?? 5000,
      logger,
      records: metrics.records,
    })
    this.#fetcher = new KafkaFetcher(cluster, logger)
    this.#bounds = new KafkaBounds(cluster, names, this.#closing.signal)
    const claims: ClaimContext = {
      cluster,
      names,
      group,
      identity,
      logger,
      windows: commitWindows(),
      bounds: (of, signal) => this.bounds(of, signal),
      follow: (of, from, limits, signal) => this.follow(of, from, limits, signal),
      readEpoch: (index) => this.#fetcher.epochOf(names.telemetry, index),
      ends: (topics, index) => this.#bounds.ends(topics, index),
    }
    const { standbys = 1, zone, sessionTimeoutMs = 10_000, balanceMs = 30_000 } = options
    const memberOptions = { standbys, zone, sessionTimeoutMs, balanceMs, logger }
    this.#group = new KafkaGroup(claims, memberOptions, metrics)
    this.#probing = this.#health.run(
      cluster,
      (topic, index) => this.#appender.waits(topic, index),
      this.#closing.signal,
    )
  }

  get fault(): Error | undefined {
    return this.#health.fault
  }

  faultAt(partition: number): Error | undefined {
    return this.fault ?? this.#health.faultAt(this.#names.telemetry, partition)
  }

  append(topic: 'telemetry' | 'dead-letters', records: readonly NewRecord[]): Promise<void> {
    return this.#appender.append(this.#names[topic], this.identity.partitions, records)
  }

  async write(record: NewRecord): Promise<Position> {
    return this.#appender.write(this.#names.telemetry, this.identity.partitions, record)
  }

  follow(of: Partition, from: Offset, limits: BatchLimits, signal: AbortSignal): AsyncIterable<Batch> {
    this.#check(of)
    return this.#fetcher.follow(this.#names[of.topic], of.index, from, limits, signal)
  }

  async bounds(of: Partition, signal?: AbortSignal): Promise<{ start: Offset; end: Offset }> {
    this.#check(of)
    return this.#bounds.bounds(of, signal)
  }

  join(member: Member, signal: AbortSignal): Promise<void> {
    if (this.#closing.signal.aborted) return Promise.reject(new RetryableError('LOG_CLOSED', 'the log is closed'))
    const joined = this.#group.join(member, signal).finally(() => this.#joins.delete(joined))
    this.#joins.add(joined)
    return joined
  }

  owners(): Promise<OwnerMap> {
    return this.#group.owners()
  }

  /** Ids by which the group knows the members of this process. */
  get memberIds(): readonly string[] {
    return this.#group.memberIds
  }

  /**
   * For each member of this process, the partitions that it should own and has not claimed; undefined before it knows.
   */
  get unclaimed(): readonly (readonly number[] | undefined)[] {
    return this.#group.unclaimed
  }

  /**
   * Has the group drop a dead member, so that its partitions move at once. A live one finds out with its next
   * heartbeat and joins again; its claims are fenced, so nothing is written twice.
   */
  evict(memberId: string): Promise<void> {
    return this.#group.evict(memberId)
  }

  /** Acts like a frozen process: it sends no heartbeat until a claim turns out to be lost. For drills. */
  suspend(): void {
    this.#group.suspend()
  }

  /** Acts like a killed process: every connection ends without a word. For drills. */
  sever(): void {
    this.#network.close()
  }

  /** Ends the roles, leaves the group and closes all connections. Appends under way reject. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#group.close()
    await Promise.allSettled(this.#joins)
    this.#closing.abort()
    this.#appender.close()
    this.#fetcher.close()
    this.#network.close()
    await this.#probing
  }

  #check({ topic, index }: Partition): void {
    if (index >= 0 && index < this.identity.partitions) return
    throw new RangeError(`there is no partition ${index} of ${this.#names[topic]}`)
  }
}
