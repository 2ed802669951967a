import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

const SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]

/** The metrics of all processors of a process: they share a registry, and are told apart by `instance`. */
export class ProcessorMetrics {
  readonly lag: Gauge
  readonly records: Counter
  readonly batchRecords: Histogram
  readonly commitSeconds: Histogram
  readonly storeSeconds: Histogram
  readonly deadLetters: Counter
  readonly restored: Counter
  readonly restoreRemaining: Gauge
  readonly devices: Gauge
  readonly fenced: Counter

  constructor(registry: Registry) {
    const registers = [registry]
    const each = ['instance', 'partition']
    const make = <T>(name: string, create: (name: string) => T) => (registry.getSingleMetric(name) as T) ?? create(name)
    this.lag = make('tidemark_consumer_lag_records', (name) => {
      return new Gauge({ name, help: 'Telemetry records after the committed input', labelNames: each, registers })
    })
    this.records = make('tidemark_processed_records_total', (name) => {
      return new Counter({ name, help: 'Telemetry records whose effect is committed', labelNames: each, registers })
    })
    this.batchRecords = make('tidemark_batch_records', (name) => {
      const buckets = [1, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000]
      return new Histogram({ name, help: 'Telemetry records in a batch', labelNames: ['instance'], buckets, registers })
    })
    this.commitSeconds = make('tidemark_commit_duration_seconds', (name) => {
      const help = 'Time of one atomic commit to the log'
      return new Histogram({ name, help, labelNames: ['instance'], buckets: SECONDS, registers })
    })
    this.storeSeconds = make('tidemark_store_commit_duration_seconds', (name) => {
      const help = 'Time of one batch written to the store, retries included'
      return new Histogram({ name, help, labelNames: ['instance'], buckets: SECONDS, registers })
    })
    this.deadLetters = make('tidemark_dead_letters_total', (name) => {
      const labelNames = ['instance', 'reason']
      return new Counter({ name, help: 'Telemetry records without effect, by reason', labelNames, registers })
    })
    this.restored = make('tidemark_restored_records_total', (name) => {
      const labelNames = [...each, 'role']
      return new Counter({ name, help: 'Changelog records written to the store', labelNames, registers })
    })
    this.restoreRemaining = make('tidemark_restore_remaining_records', (name) => {
      return new Gauge({ name, help: 'Changelog records still to be read', labelNames: each, registers })
    })
    this.devices = make('tidemark_devices', (name) => {
      return new Gauge({ name, help: 'Devices in the copy of a partition', labelNames: each, registers })
    })
    this.fenced = make('tidemark_fenced_claims_total', (name) => {
      const help = 'Claims lost to a newer epoch'
      return new Counter({ name, help, labelNames: ['instance'], registers })
    })
  }
}
