import type { Logger } from 'pino'
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import { RetryableError, reasonOf } from '../../contract/errors.ts'
import { pause, within } from '../../runtime/pause.ts'
import type { KafkaCluster } from './cluster.ts'
import type { Metadata } from './protocol/metadata.ts'

const REBALANCE_SECONDS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]

export class KafkaMetrics {
  readonly records: Counter<'topic'>
  readonly fault: Gauge
  readonly faults: Gauge<'topic'>
  readonly rebalances: Histogram
  readonly evictions: Counter
  readonly moves: Counter
  readonly unfit: Gauge<'processor'>

  constructor(registry: Registry) {
    const registers = [registry]
    const counter = <L extends string>(name: string, help: string, labelNames: L[]) =>
      new Counter({ name, help, labelNames, registers })
    this.records = counter('tidemark_log_records_total', 'Records appended to the log', ['topic'])
    this.fault = new Gauge({ name: 'tidemark_log_fault', help: '1 while the log cannot be written', registers })
    this.faults = new Gauge({
      name: 'tidemark_log_faulty_partitions',
      help: 'Partitions that cannot be written, as far as this process knows',
      labelNames: ['topic'],
      registers,
    })
    this.rebalances = new Histogram({
      name: 'tidemark_rebalance_duration_seconds',
      help: 'From asking the group to join until the assignment',
      buckets: REBALANCE_SECONDS,
      registers,
    })
    this.evictions = counter('tidemark_group_evictions_total', 'Dead members this process had leave the group', [])
    this.unfit = new Gauge({
      name: 'tidemark_unfit_processors',
      help: '1 while the group is asked to give the processor no partitions, since its stores lack space',
      labelNames: ['processor'],
      registers,
    })
    this.moves = counter('tidemark_load_moves_total', 'Partitions moved to even the load, by the leader', [])
  }
}

const PROBE_INTERVAL_MS = 500
/** A cluster that has not answered for this long cannot be written to, ms. */
const PROBE_TIMEOUT_MS = 2500
/** A partition that may be tried again counts as well after this long without a failure, ms. */
const FORGET_MS = 30_000
/**
 * A topic is gone when brokers do not know it for this long, ms: one whose metadata is behind may not know it for a
 * moment.
 */
const GONE_AFTER_MS = 2000

interface PartitionFault {
  readonly error: RetryableError
  /** Since when the partition may be tried again; whether it works is not known then. */
  retryAt: number | undefined
}

/** Whether Kafka and each partition can be written to, by the last attempts. */
export class KafkaHealth {
  readonly #needed: { readonly topic: string; readonly partitions: number }
  readonly #logger: Logger
  readonly #metrics: Pick<KafkaMetrics, 'fault' | 'faults'>
  readonly #faults = new Map<string, Map<number, PartitionFault>>()
  fault: RetryableError | undefined
  /** Since when brokers do not know the needed topic, ms. */
  #goneSince: number | undefined

  /** Kafka as a whole has a fault when no partition of `needed` can be written to, or the topic is gone. */
  constructor(
    needed: { topic: string; partitions: number },
    logger: Logger,
    metrics: Pick<KafkaMetrics, 'fault' | 'faults'>,
  ) {
    this.#needed = needed
    this.#logger = logger
    this.#metrics = metrics
  }

  /** Why the partition must not be written to now; undefined also when it may be tried again. */
  faultAt(topic: string, partition: number): RetryableError | undefined {
    const fault = this.#faults.get(topic)?.get(partition)
    return fault?.retryAt === undefined ? fault?.error : undefined
  }

  /** Kafka answered. */
  succeed(): void {
    if (this.fault === undefined) return
    this.fault = undefined
    this.#metrics.fault.set(0)
    this.#logger.info('Kafka answers again')
  }

  fail(cause: unknown): void {
    if (this.fault !== undefined) return
    this.fault = unwritable('Kafka', cause)
    this.#metrics.fault.set(1)
    this.#logger.error({ err: cause }, 'Kafka cannot be written to')
  }

  succeedAt(topic: string, partition: number): void {
    this.#clear(topic, partition)
    if (this.fault !== undefined && !this.#allFail) this.succeed()
  }

  failAt(topic: string, partition: number, cause: unknown): void {
    const faults = this.#faults.get(topic) ?? new Map<number, PartitionFault>()
    const before = faults.get(partition)
    if (before !== undefined && before.retryAt === undefined) return
    faults.set(partition, { error: unwritable(`${topic} ${partition}`, cause), retryAt: undefined })
    if (before === undefined) {
      this.#faults.set(topic, faults)
      this.#metrics.faults.set({ topic }, faults.size)
      this.#logger.error({ err: cause, topic, partition }, 'a partition cannot be written to')
    }
    if (this.#allFail) this.fail(cause)
  }

  #clear(topic: string, partition: number): void {
    const faults = this.#faults.get(topic)
    if (!faults?.delete(partition)) return
    this.#metrics.faults.set({ topic }, faults.size)
    this.#logger.info({ topic, partition }, 'a partition can be written to again')
  }

  /**
   * Probes the cluster: a process that writes nothing would otherwise not notice that Kafka is away, and one that
   * refuses writes because of a fault would not notice that it is back. A failed partition that has a leader may be
   * tried again once nothing waits for it (`waits`).
   */
  async run(
    cluster: KafkaCluster,
    waits: (topic: string, partition: number) => boolean,
    signal: AbortSignal,
  ): Promise<void> {
    while (!signal.aborted) {
      try {
        const { topics } = await within(cluster.probe(), PROBE_TIMEOUT_MS, unanswered)
        for (const [topic, faults] of this.#faults) {
          const leaders = topics.get(topic)?.leaders ?? []
          for (const [index, fault] of faults) {
            if ((leaders[index] ?? -1) < 0 || waits(topic, index)) continue
            fault.retryAt ??= performance.now()
            if (performance.now() - fault.retryAt > FORGET_MS) this.#clear(topic, index)
          }
        }
        const gone = this.#gone(topics)
        if (gone !== undefined) this.fail(gone)
        else if (!this.#allFail) this.succeed()
      } catch (error) {
        if (!signal.aborted) this.fail(error)
      }
      await pause(PROBE_INTERVAL_MS, signal)
    }
  }

  #gone(topics: Metadata['topics']): RetryableError | undefined {
    const { topic } = this.#needed
    if (topics.has(topic)) {
      this.#goneSince = undefined
      return undefined
    }
    this.#goneSince ??= performance.now()
    if (performance.now() - this.#goneSince < GONE_AFTER_MS) return undefined
    const reason = `brokers tell of no topic ${topic}: it was deleted, or this user may not see it any more`
    return new RetryableError('LOG_UNAVAILABLE', reason)
  }

  get #allFail(): boolean {
    const { topic, partitions } = this.#needed
    for (let index = 0; index < partitions; index++) if (this.faultAt(topic, index) === undefined) return false
    return true
  }
}

function unwritable(what: string, cause: unknown): RetryableError {
  return new RetryableError('LOG_UNAVAILABLE', `${what} cannot be written to: ${reasonOf(cause)}`, cause)
}

function unanswered(): never {
  throw new RetryableError(
    'LOG_UNAVAILABLE',
    `no broker has answered within ${PROBE_TIMEOUT_MS} ms at the address by which the cluster lists it`,
  )
}
