import { Counter, Gauge, type Registry } from 'prom-client'
import type { Topic } from '../log.ts'

/** What the embedded log counts. */
export class EmbeddedMetrics {
  readonly records: Readonly<Record<Topic, Counter.Internal>>
  readonly writes: Counter
  readonly fault: Gauge
  readonly retained: Counter<'topic'>
  readonly cleaned: Counter

  constructor(registry: Registry) {
    const registers = [registry]
    const counter = <L extends string>(name: string, help: string, labelNames: L[]) =>
      new Counter({ name, help, labelNames, registers })
    const records = counter('tidemark_log_records_total', 'Records appended to the log', ['topic'])
    this.records = {
      telemetry: records.labels('telemetry'),
      status: records.labels('status'),
      'dead-letters': records.labels('dead-letters'),
    }
    this.writes = counter('tidemark_log_writes_total', 'Atomic writes of the embedded log', [])
    this.retained = counter('tidemark_log_retention_bytes_total', 'Bytes of records removed by retention', ['topic'])
    this.cleaned = counter('tidemark_log_compaction_bytes_total', 'Bytes of records removed by compaction', [])
    this.fault = new Gauge({ name: 'tidemark_log_fault', help: '1 while the log cannot be written', registers })
  }
}
