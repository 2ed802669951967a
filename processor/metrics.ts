import type { Logger } from 'pino'
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import { REJECTION_REASONS } from './contract/dead-letter.ts'
import { OUTCOMES } from './contract/write.ts'
import type { Commit } from './partition/commit.ts'
import type { Role } from './partition/role.ts'
import { Reminder } from './runtime/pause.ts'

const SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
const LONG_SECONDS = [0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900]
const RECORDS = [1, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000]
const EACH = ['processor', 'partition'] as const

const ROLES = ['owner', 'standby'] as const
const STATES = ['restoring', 'running', 'doubtful'] as const

/** A copy as CopiesGauge counts it. */
type CountedCopy = Pick<Role, 'kind' | 'state' | 'held'>

/**
 * Counts copies at the moment of a scrape: no event tells a copy that the group may have dropped its member. Otherwise a
 * copy that is cut off from the log would count beside the partition's new one for as long as it is.
 */
class CopiesGauge extends Gauge<'processor' | 'role' | 'state'> {
  readonly #copies = new Map<string, Set<CountedCopy>>()

  constructor(registry: Registry) {
    super({
      name: 'tidemark_partitions',
      help: 'Copies of partitions held, by role and state; doubtful: the group may have given the partition to another',
      labelNames: ['processor', 'role', 'state'],
      registers: [registry],
    })
  }

  of(processor: string): Set<CountedCopy> {
    let copies = this.#copies.get(processor)
    if (copies === undefined) this.#copies.set(processor, (copies = new Set()))
    return copies
  }

  /** Called by prom-client before it reads the values. */
  collect(): void {
    for (const [processor, copies] of this.#copies) {
      const all = Array.from(copies, ({ kind, state, held }) => `${kind} ${held ? state : 'doubtful'}`)
      for (const role of ROLES) {
        for (const state of STATES) {
          this.set({ processor, role, state }, all.filter((each) => each === `${role} ${state}`).length)
        }
      }
    }
  }
}

/**
 * The metrics of all processors of a process. They share a registry, and the label `processor` tells them apart: Prometheus
 * keeps `instance` for the scraped address.
 */
export class ProcessorMetrics {
  readonly lag: Gauge
  readonly partitions: CopiesGauge
  readonly records: Counter
  readonly batchRecords: Histogram
  readonly commitSeconds: Histogram
  readonly storeSeconds: Histogram
  readonly unwritable: Gauge
  readonly endToEndSeconds: Histogram
  readonly deadLetters: Counter
  readonly decisions: Counter
  readonly restored: Counter
  readonly restoreRemaining: Gauge
  readonly restoreSeconds: Histogram
  readonly standbyLag: Gauge
  readonly devices: Gauge
  readonly fenced: Counter

  constructor(registry: Registry) {
    const gauge = (name: string, help: string, labelNames: readonly string[]) =>
      shared(registry, name, () => new Gauge({ name, help, labelNames, registers: [registry] }))
    const counter = (name: string, help: string, labelNames: readonly string[]) =>
      shared(registry, name, () => new Counter({ name, help, labelNames, registers: [registry] }))
    const histogram = (name: string, help: string, labelNames: readonly string[], buckets: number[]) =>
      shared(registry, name, () => new Histogram({ name, help, labelNames, buckets, registers: [registry] }))

    this.lag = gauge('tidemark_consumer_lag_records', 'Telemetry records after the committed input', EACH)
    this.partitions = shared(registry, 'tidemark_partitions', () => new CopiesGauge(registry))
    this.records = counter('tidemark_processed_records_total', 'Telemetry records whose effect is committed', EACH)
    this.batchRecords = histogram('tidemark_batch_records', 'Telemetry records in a batch', ['processor'], RECORDS)
    const commit = 'Time of one atomic commit to the log'
    this.commitSeconds = histogram('tidemark_commit_duration_seconds', commit, ['processor'], SECONDS)
    const write = 'Time of one batch written to the store, retries included'
    this.storeSeconds = histogram('tidemark_store_commit_duration_seconds', write, ['processor'], SECONDS)
    const refused = 'Copies of partitions whose store cannot be written now'
    this.unwritable = gauge('tidemark_unwritable_stores', refused, ['processor'])
    const age = 'From the receipt of the first record of a batch until its effect can be read; one sample a batch'
    this.endToEndSeconds = histogram('tidemark_end_to_end_latency_seconds', age, ['processor'], LONG_SECONDS)
    const letters = 'Telemetry records without effect, by reason'
    this.deadLetters = counter('tidemark_dead_letters_total', letters, ['processor', 'reason'])
    const decided = 'Writes of attributes and deletions whose turn came, by what they came to'
    this.decisions = counter('tidemark_decided_writes_total', decided, ['processor', 'outcome'])
    const each = [...EACH, 'role']
    this.restored = counter('tidemark_restored_records_total', 'Changelog records written to the store', each)
    const remaining = 'Changelog offsets to be read until the copy is whole: records, and gaps'
    this.restoreRemaining = gauge('tidemark_restore_remaining_records', remaining, each)
    const restore = 'From taking up a copy until it is whole: of an owner, until it processes'
    this.restoreSeconds = histogram('tidemark_restore_duration_seconds', restore, ['processor', 'role'], LONG_SECONDS)
    this.standbyLag = gauge(
      'tidemark_standby_lag_records',
      'Changelog offsets that a standby does not have yet: records, and gaps',
      EACH,
    )
    this.devices = gauge('tidemark_devices', 'Devices in the copy of a partition', each)
    this.fenced = counter('tidemark_fenced_claims_total', 'Claims lost to a newer epoch', ['processor'])
  }

  /** Starts counters at 0: Prometheus sees no increase in a series whose first sample is 1. */
  initialize(processor: string): void {
    for (const reason of REJECTION_REASONS) this.deadLetters.inc({ processor, reason }, 0)
    for (const outcome of OUTCOMES) this.decisions.inc({ processor, outcome }, 0)
    this.fenced.inc({ processor }, 0)
  }
}

function shared<T>(registry: Registry, name: string, create: () => T): T {
  return (registry.getSingleMetric(name) as T | undefined) ?? create()
}

export interface CopyLabels {
  readonly processor: string
  readonly partition: number
  readonly role: Role['kind']
}

/** The metrics of one copy while one role works on it; its gauges go with the role. */
export class CopyMetrics {
  readonly #metrics: ProcessorMetrics
  readonly #labels: CopyLabels
  /** Labels without the role. */
  readonly #each: Pick<CopyLabels, 'processor' | 'partition'>
  readonly #lag: Gauge

  constructor(metrics: ProcessorMetrics, labels: CopyLabels) {
    const { processor, partition, role } = labels
    this.#metrics = metrics
    this.#labels = labels
    this.#each = { processor, partition }
    this.#lag = role === 'owner' ? metrics.lag : metrics.standbyLag
  }

  open(copy: CountedCopy): void {
    this.#metrics.partitions.of(this.#labels.processor).add(copy)
  }

  close(copy: CountedCopy): void {
    const { partitions, devices, restoreRemaining } = this.#metrics
    partitions.of(this.#labels.processor).delete(copy)
    this.#lag.remove({ ...this.#each })
    for (const gauge of [devices, restoreRemaining]) gauge.remove({ ...this.#labels })
  }

  lag(records: number | undefined): void {
    setOrRemove(this.#lag, { ...this.#each }, records)
  }

  devices(count: number | undefined): void {
    setOrRemove(this.#metrics.devices, { ...this.#labels }, count)
  }

  restoreRemaining(records: number | undefined): void {
    setOrRemove(this.#metrics.restoreRemaining, { ...this.#labels }, records)
  }

  restored(records: number): void {
    this.#metrics.restored.inc({ ...this.#labels }, records)
  }

  restoreTook(ms: number): void {
    const { processor, role } = this.#labels
    this.#metrics.restoreSeconds.observe({ processor, role }, ms / 1000)
  }

  committed({ records, tookMs, rejections, decisions }: Commit): void {
    const { processor } = this.#labels
    const metrics = this.#metrics
    metrics.commitSeconds.observe({ processor }, tookMs / 1000)
    metrics.batchRecords.observe({ processor }, records)
    metrics.records.inc(this.#each, records)
    for (const reason of rejections) metrics.deadLetters.inc({ processor, reason })
    for (const { outcome } of decisions) metrics.decisions.inc({ processor, outcome })
  }

  fenced(): void {
    this.#metrics.fenced.inc({ processor: this.#labels.processor })
  }
}

/** An unknown value has no sample: a 0 would be read as one. */
function setOrRemove(gauge: Gauge, labels: Record<string, string | number>, value: number | undefined): void {
  if (value === undefined) gauge.remove(labels)
  else gauge.set(labels, value)
}

/** A record received this much later than now, ms, shows that the clock of ingest or of this process is wrong. */
const APART_MS = 60_000

export interface EndToEndLatencyOptions {
  readonly instance: string
  readonly metrics: ProcessorMetrics
  readonly logger: Logger
  /** Epoch ms. */
  readonly now: () => number
}

/** Measures the time from the receipt of a record until its effect can be read, by the clocks of ingest and of this process. */
export class EndToEndLatency {
  readonly #options: EndToEndLatencyOptions
  readonly #reminder = new Reminder()

  constructor(options: EndToEndLatencyOptions) {
    this.#options = options
  }

  /** `receivedAt` belongs to the first record of a commit, epoch ms. */
  observe(partition: number, receivedAt: number): void {
    const { instance, metrics, logger, now } = this.#options
    const ms = now() - receivedAt
    metrics.endToEndSeconds.observe({ processor: instance }, Math.max(0, ms) / 1000)
    if (ms >= -APART_MS) return
    const what =
      'records come stamped later than now: set the clock that is wrong, of who stamped them or of this process'
    if (this.#reminder.isDue(what)) logger.warn({ partition, aheadSeconds: Math.round(-ms / 1000) }, what)
  }
}
