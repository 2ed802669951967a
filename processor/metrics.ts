import type { Logger } from 'pino'
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import { REJECTION_REASONS } from './contract/dead-letter.ts'
import { OUTCOMES } from './contract/write.ts'
import type { RoleState } from './partition/role.ts'
import { Reminder } from './runtime/pause.ts'

const SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
const LONG_SECONDS = [0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900]
const EACH = ['processor', 'partition'] as const

const ROLES = ['owner', 'standby'] as const
const STATES = ['restoring', 'running', 'doubtful'] as const

/** What is counted of a copy. */
interface CountedCopy {
  readonly kind: 'owner' | 'standby'
  readonly state: RoleState
  readonly held: boolean
}

/**
 * Copies as they are when they are asked for: that its member may be out of the group is nothing that a copy is told of.
 * One that is cut off from the log would else count beside who has its partition by now, for as long as it is.
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
 * The metrics of all processors of a process: they share a registry, and are told apart by `processor` (Prometheus keeps
 * `instance` for what it scrapes).
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

  /** What counts by reason is there from the start: Prometheus sees no increase in a series that begins with one. */
  begin(processor: string): void {
    for (const reason of REJECTION_REASONS) this.deadLetters.inc({ processor, reason }, 0)
    for (const outcome of OUTCOMES) this.decisions.inc({ processor, outcome }, 0)
    this.fenced.inc({ processor }, 0)
  }
}

/** What is not known has no sample: a 0 would be read as one. */
export function say(gauge: Gauge, labels: Readonly<Record<string, string | number>>, value: number | undefined): void {
  if (value === undefined) gauge.remove(labels)
  else gauge.set(labels, value)
}

const RECORDS = [1, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000]

function shared<T>(registry: Registry, name: string, create: () => T): T {
  return (registry.getSingleMetric(name) as T | undefined) ?? create()
}

/** A record that was received so much later than now, ms, was stamped by a clock that is wrong, or this one is. */
const APART_MS = 60_000

export interface ReceiptsOptions {
  readonly instance: string
  readonly metrics: ProcessorMetrics
  readonly logger: Logger
  /** Epoch ms. */
  readonly now: () => number
}

/** How old records are when their effect can be read: by two clocks, that of ingest and that of this process. */
export class Receipts {
  readonly #options: ReceiptsOptions
  readonly #told = new Reminder()

  constructor(options: ReceiptsOptions) {
    this.#options = options
  }

  /** `receivedAt`: of the first record of a batch, epoch ms. */
  applied(partition: number, receivedAt: number): void {
    const { instance, metrics, logger, now } = this.#options
    const ageMs = now() - receivedAt
    metrics.endToEndSeconds.observe({ processor: instance }, Math.max(0, ageMs) / 1000)
    if (ageMs >= -APART_MS) return
    const what =
      'records come stamped later than now: set the clock that is wrong, of who stamped them or of this process'
    if (this.#told.isDue(what)) logger.warn({ partition, aheadSeconds: Math.round(-ageMs / 1000) }, what)
  }
}
