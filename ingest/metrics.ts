import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { RejectionReason } from '../processor/contract/dead-letter.ts'
import type { ErrorCode } from '../processor/contract/errors.ts'
import { CLOSE_REASONS } from './connection/connection.ts'

const LETTERS: readonly RejectionReason[] = [
  'bad-topic',
  'reserved-topic',
  'bad-device-id',
  'not-allowed',
  'payload-too-large',
]
const REFUSALS = [
  'server unavailable',
  'too many connections',
  'too many connections of one address',
  'too many attempts of one address',
  'too many connections of one name',
  'handshake failed',
  'foreign origin',
  'return code 1',
  'return code 2',
  'return code 4',
  'return code 5',
]
const DENIALS = ['publish', 'subscribe', 'receive']
/** Errors of an append; any other error is counted by its name. */
const FAILURES: readonly ErrorCode[] = [
  'LOG_UNAVAILABLE',
  'LOG_NO_SPACE',
  'LOG_CLOSED',
  'LOG_CORRUPTED',
  'LOG_MISMATCH',
  'RECORD_TOO_LARGE',
]
const DROPS = ['buffer full', 'append failed']
const BOUNDS = [
  'retained',
  'unreleased',
  'will of a failed append',
  'will bytes',
  'subscriptions',
  'held bytes',
  'backlog',
  'devices of a connection',
  'tracked devices',
  'sessions away',
  'session queue',
  'client id',
  'pace of a client',
]

/** Counts by label. A prom-client counter costs more than all else a message needs, so one is filled when it is read. */
class Tally {
  readonly #counts: Map<string, number>

  /** The `known` labels begin at 0: Prometheus sees no increase in a series that begins at 1. */
  constructor(known: readonly string[]) {
    this.#counts = new Map(known.map((label) => [label, 0]))
  }

  add(label: string, by = 1): void {
    this.#counts.set(label, (this.#counts.get(label) ?? 0) + by)
  }

  entries(): IterableIterator<[string, number]> {
    return this.#counts.entries()
  }
}

/** The metrics of ingest. The hot path increments plain fields; prom-client reads them at a scrape. */
export class IngestMetrics {
  /** PUBLISH packets by QoS. */
  readonly received: [number, number, number] = [0, 0, 0]
  /** PUBACK and PUBREC that left, by QoS 1 and 2. */
  readonly acknowledged: [number, number, number] = [0, 0, 0]
  connections = 0
  opened = 0
  /** Messages and bytes held without ack. */
  held = 0
  heldBytes = 0
  appendsUnderWay = 0
  trackedDevices = 0
  readonly droppedQos0 = new Tally(DROPS)
  readonly deadLetters = new Tally(LETTERS)
  readonly closes = new Tally(CLOSE_REASONS)
  readonly refusals = new Tally(REFUSALS)
  readonly denials = new Tally(DENIALS)
  readonly boundHits = new Tally(BOUNDS)
  readonly failedAppends = new Tally(FAILURES)
  readonly appendSeconds: Histogram
  readonly batchRecords: Histogram

  constructor(registry: Registry) {
    const registers = [registry]
    this.appendSeconds = new Histogram({
      name: 'tidemark_ingest_append_duration_seconds',
      help: 'Time the log took to make one batch durable.',
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers,
    })
    this.batchRecords = new Histogram({
      name: 'tidemark_ingest_batch_records',
      help: 'Records gathered into one append.',
      buckets: [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2000],
      registers,
    })
    const gauges: [string, string, () => number][] = [
      ['connections', 'Open MQTT connections.', () => this.connections],
      ['held_messages', 'QoS 1 and 2 messages whose ack waits for the log.', () => this.held],
      ['held_bytes', 'Their bytes.', () => this.heldBytes],
      ['appends_under_way', 'Appends the log has not answered.', () => this.appendsUnderWay],
      ['tracked_devices', 'Devices whose connectivity is tracked.', () => this.trackedDevices],
    ]
    for (const [name, help, read] of gauges) {
      const collect = function (this: Gauge): void {
        this.set(read())
      }
      registry.registerMetric(new Gauge({ name: `tidemark_ingest_${name}`, help, registers: [], collect }))
    }
    const counters: [name: string, help: string, label: string | undefined, read: () => Iterable<[string, number]>][] =
      [
        ['connections_total', 'Connections accepted.', undefined, () => [['', this.opened]]],
        ['messages_total', 'PUBLISH packets received.', 'qos', () => byQos(this.received)],
        ['acknowledged_total', 'PUBACK and PUBREC that left.', 'qos', () => byQos(this.acknowledged).slice(1)],
        [
          'dropped_qos0_total',
          'QoS 0 messages that did not reach the log.',
          'reason',
          () => this.droppedQos0.entries(),
        ],
        ['dead_letters_total', 'Messages appended to the dead letters.', 'reason', () => this.deadLetters.entries()],
        ['closes_total', 'Connections closed.', 'reason', () => this.closes.entries()],
        ['refusals_total', 'Connections refused.', 'reason', () => this.refusals.entries()],
        ['denials_total', 'What clients had no right to.', 'action', () => this.denials.entries()],
        ['bound_hits_total', 'Times a bound was reached.', 'bound', () => this.boundHits.entries()],
        ['failed_appends_total', 'Batches the log did not take.', 'reason', () => this.failedAppends.entries()],
      ]
    for (const [name, help, label, read] of counters) {
      const collect = function (this: Counter): void {
        this.reset()
        for (const [value, count] of read()) this.inc(label === undefined ? {} : { [label]: value }, count)
      }
      const labelNames = label === undefined ? [] : [label]
      registry.registerMetric(
        new Counter({ name: `tidemark_ingest_${name}`, help, labelNames, registers: [], collect }),
      )
    }
  }
}

function byQos(counts: readonly number[]): [string, number][] {
  return counts.map((count, qos) => [String(qos), count])
}
