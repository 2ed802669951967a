import { Counter, Gauge, Histogram, type Registry } from 'prom-client'

const REBALANCE_SECONDS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]

/** What the Kafka adapter counts. */
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
