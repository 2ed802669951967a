import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

/** What the Kafka adapter counts. */
export class KafkaMetrics {
  readonly records: Counter<'topic'>
  readonly fault: Gauge
  readonly commits: Histogram
  readonly rebalances: Histogram
  readonly fenced: Counter
  readonly evictions: Counter

  constructor(registry: Registry) {
    const registers = [registry]
    const counter = <L extends string>(name: string, help: string, labelNames: L[]) =>
      new Counter({ name, help, labelNames, registers })
    const histogram = (name: string, help: string, buckets: number[]) =>
      new Histogram({ name, help, buckets, registers })
    const seconds = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
    this.records = counter('tidemark_log_records_total', 'Records appended to Kafka', ['topic'])
    this.fault = new Gauge({ name: 'tidemark_log_fault', help: '1 while the log cannot be written', registers })
    this.commits = histogram('tidemark_log_commit_seconds', 'Time of one commit: its whole transaction', seconds)
    this.rebalances = histogram('tidemark_group_rebalance_seconds', 'From asking to join to the assignment', seconds)
    this.fenced = counter('tidemark_claims_fenced_total', 'Claims lost to a newer epoch', [])
    this.evictions = counter('tidemark_group_evictions_total', 'Dead members this process had leave the group', [])
  }
}
