import type { Logger } from 'pino'
import { RetryableError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import type { NewRecord } from '../../processor/contract/record.ts'
import { isDeviceId } from '../../processor/contract/telemetry.ts'
import type { Log } from '../../processor/log/log.ts'
import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'

/** A deadline that is seen so much late, ms, says that the process stood still: the batch has its time once more. */
const STOOD_STILL_MS = 100

/**
 * Something that waits for the log: an ack, mostly. Settled once for each ticket it was added with, with the reason when
 * the log did not take the record.
 */
export interface Hold {
  settle(error: Error | null, ticket: number): void
}

/** What the batchers of an ingest share. */
export interface Shared {
  readonly limits: Limits
  readonly metrics: IngestMetrics
  /** Bytes under way of records nobody waits for. */
  qos0Bytes: number
  /** An append ended, or was given up. */
  ended(error: Error | null): void
  /** A batcher has nothing left to settle. */
  idle(): void
}

/** Records gathered into one append, and what waits for them, in the order of receipt. */
class Flight {
  readonly records: NewRecord[] = []
  readonly holds: Hold[] = []
  readonly tickets: number[] = []
  bytes = 0
  qos0 = 0
  qos0Bytes = 0
  sent = false
  /** Undefined while open; null: durable; or why not. */
  outcome: Error | null | undefined
  deadline: NodeJS.Timeout | undefined
  /** When it passes, by performance.now(). */
  dueAt = 0
  /** It was passed once while the process stood still. */
  renewed = false
}

/**
 * Gathers the records of one partition into few appends. Batches are sent in order, without awaiting one another (the log
 * keeps the order of such appends), and settled in order.
 */
export class Batcher {
  readonly #append: (records: readonly NewRecord[]) => Promise<void>
  readonly #shared: Shared
  #open: Flight | undefined
  #linger: NodeJS.Timeout | undefined
  /** The open batch has lingered long enough and waits for an append to end. */
  #due = false
  readonly #unsent: Flight[] = []
  /** Closed batches, sent or not, that are not settled. */
  readonly #unsettled: Flight[] = []
  #underWay = 0
  /** Appends under way whose batch was given up. */
  #overdue = 0

  constructor(append: (records: readonly NewRecord[]) => Promise<void>, shared: Shared) {
    this.#append = append
    this.#shared = shared
  }

  /** Why nothing new should be begun now; undefined while the log takes what it is given. */
  get fault(): Error | undefined {
    return this.#overdue > 0 ? overdue(this.#shared.limits.appendDeadlineMs) : undefined
  }

  get idle(): boolean {
    return this.#unsettled.length === 0 && this.#open === undefined
  }

  /** `hold` is settled when the record is durable; `bytes`: of the packet it came with. */
  add(record: NewRecord, bytes: number, hold: Hold, ticket: number): void {
    const flight = this.#put(record, bytes)
    flight.holds.push(hold)
    flight.tickets.push(ticket)
    this.#sealIfFull(flight)
  }

  /** `hold` is settled after everything added before it; it brings no record of its own. */
  follow(hold: Hold, ticket: number): void {
    const flight = this.#flight()
    flight.holds.push(hold)
    flight.tickets.push(ticket)
  }

  /** A record nobody waits for; false when it was dropped, since too many bytes of such records are under way. */
  offer(record: NewRecord, bytes: number): boolean {
    const shared = this.#shared
    if (shared.qos0Bytes + bytes > shared.limits.maxQos0Bytes) {
      shared.metrics.droppedQos0.add('buffer full')
      return false
    }
    const flight = this.#put(record, bytes)
    shared.qos0Bytes += bytes
    flight.qos0Bytes += bytes
    flight.qos0++
    this.#sealIfFull(flight)
    return true
  }

  /** Sends what lingers at once. */
  flush(): void {
    if (this.#open !== undefined) this.#seal(this.#open)
  }

  #put(record: NewRecord, bytes: number): Flight {
    const flight = this.#flight()
    flight.records.push(record)
    flight.bytes += bytes
    return flight
  }

  #flight(): Flight {
    const open = this.#open
    if (open !== undefined) return open
    const { lingerMs } = this.#shared.limits
    const flight = new Flight()
    this.#open = flight
    this.#linger = setTimeout(() => this.#lingered(), lingerMs)
    this.#await(flight)
    return flight
  }

  #sealIfFull(flight: Flight): void {
    const { maxBatchRecords, maxBatchBytes } = this.#shared.limits
    if (flight.records.length >= maxBatchRecords || flight.bytes >= maxBatchBytes) this.#seal(flight)
  }

  #lingered(): void {
    // Batches that cannot be sent yet go on filling: fewer and larger appends are what a slow log needs.
    if (this.#underWay >= this.#shared.limits.maxAppends) this.#due = true
    else if (this.#open !== undefined) this.#seal(this.#open)
  }

  #seal(flight: Flight): void {
    this.#close(flight)
    this.#send()
  }

  /** `flight`: the open one. */
  #close(flight: Flight): void {
    clearTimeout(this.#linger)
    this.#due = false
    this.#open = undefined
    this.#unsent.push(flight)
    this.#unsettled.push(flight)
  }

  #send(): void {
    const { maxAppends } = this.#shared.limits
    while (this.#underWay < maxAppends) {
      const flight = this.#unsent.shift()
      if (flight === undefined) break
      const before = this.#failedBefore()
      if (before !== undefined) this.#decide(flight, before)
      else if (flight.records.length > 0) this.#begin(flight)
      else this.#decide(flight, null)
    }
    if (this.#due && this.#open !== undefined && this.#underWay < maxAppends) this.#seal(this.#open)
  }

  #begin(flight: Flight): void {
    const { metrics } = this.#shared
    flight.sent = true
    this.#underWay++
    metrics.appendsUnderWay++
    metrics.batchRecords.observe(flight.records.length)
    const began = performance.now()
    const ended = (error: Error | null): void => {
      this.#underWay--
      metrics.appendsUnderWay--
      metrics.appendSeconds.observe((performance.now() - began) / 1000)
      if (flight.outcome !== undefined) this.#overdue--
      else if (error !== null) this.#fail(flight, error)
      else this.#decide(flight, null)
      this.#shared.ended(error)
      this.#send()
    }
    Promise.try(() => this.#append(flight.records)).then(
      () => ended(null),
      (error: unknown) => ended(error instanceof Error ? error : new Error(String(error))),
    )
  }

  #await(flight: Flight): void {
    const { appendDeadlineMs } = this.#shared.limits
    flight.dueAt = performance.now() + appendDeadlineMs
    flight.deadline = setTimeout(() => this.#late(flight), appendDeadlineMs).unref()
  }

  /** A process that stood still has not read what was answered, and may not even have sent the batch. */
  #late(flight: Flight): void {
    if (flight.renewed || performance.now() - flight.dueAt < STOOD_STILL_MS) return this.#giveUp(flight)
    flight.renewed = true
    this.#await(flight)
  }

  #giveUp(flight: Flight): void {
    if (flight.sent) this.#overdue++
    const error = overdue(this.#shared.limits.appendDeadlineMs)
    this.#fail(flight, error)
    this.#shared.ended(error)
  }

  /**
   * With it fails what was received after it and is not sent: of a connection that is closed for it, and whose client
   * will send it all again, later messages would be in the log before earlier ones.
   */
  #fail(flight: Flight, error: Error): void {
    if (this.#open !== undefined) this.#close(this.#open)
    // It may be one that was not sent itself.
    for (const failed of new Set([flight, ...this.#unsent.splice(0)])) this.#decide(failed, error)
  }

  /** The failure of a batch whose connections are still open, as an earlier batch is not decided. */
  #failedBefore(): Error | undefined {
    return this.#unsettled.find(({ outcome }) => outcome instanceof Error)?.outcome ?? undefined
  }

  #decide(flight: Flight, outcome: Error | null): void {
    clearTimeout(flight.deadline)
    flight.outcome = outcome
    if (outcome !== null)
      this.#shared.metrics.failedAppends.add('code' in outcome ? String(outcome.code) : outcome.name)
    for (;;) {
      const head = this.#unsettled[0]
      if (head?.outcome === undefined) break
      this.#unsettled.shift()
      this.#settle(head, head.outcome)
    }
    if (this.idle) this.#shared.idle()
  }

  #settle(flight: Flight, outcome: Error | null): void {
    const { holds, tickets, qos0, qos0Bytes } = flight
    this.#shared.qos0Bytes -= qos0Bytes
    if (outcome !== null && qos0 > 0) this.#shared.metrics.droppedQos0.add('append failed', qos0)
    for (let i = 0; i < holds.length; i++) (holds[i] as Hold).settle(outcome, tickets[i] as number)
  }
}

function overdue(deadlineMs: number): RetryableError {
  return new RetryableError('LOG_UNAVAILABLE', `the log has not answered an append within ${deadlineMs} ms`)
}

/** What ingest needs of the log. */
export type Sink = Pick<Log, 'append' | 'fault' | 'faultAt'> & {
  readonly identity: Pick<Log['identity'], 'partitions'>
}

/**
 * Where records wait for the log: those of each partition of telemetry by themselves, and dead letters, so that a
 * partition that cannot be written keeps nothing waiting but its own devices.
 */
export class Appender implements Shared {
  readonly limits: Limits
  readonly metrics: IngestMetrics
  qos0Bytes = 0
  /** Of dead letters. */
  readonly letters: Batcher
  readonly #log: Sink
  readonly #logger: Logger
  readonly #partitions: readonly Batcher[]
  #failing = false
  readonly #settled: (() => void)[] = []

  constructor(log: Sink, limits: Limits, metrics: IngestMetrics, logger: Logger) {
    this.limits = limits
    this.metrics = metrics
    this.#log = log
    this.#logger = logger
    const telemetry = (records: readonly NewRecord[]): Promise<void> => log.append('telemetry', records)
    this.#partitions = Array.from({ length: log.identity.partitions }, () => new Batcher(telemetry, this))
    this.letters = new Batcher((records) => log.append('dead-letters', records), this)
  }

  /** Why nothing new should be begun for the device now; undefined while the log takes what it is given. */
  faultOf(deviceId: string): Error | undefined {
    const index = partitionOf(deviceId, this.#partitions.length)
    return this.#log.faultAt(index) ?? this.#partitions[index]?.fault
  }

  /** The same for a client: one that is no device may speak for devices of any partition. */
  faultFor(clientId: string): Error | undefined {
    if (isDeviceId(clientId)) return this.faultOf(clientId)
    const { fault } = this.#log
    if (fault !== undefined) return fault
    const faults = this.#partitions.map((batcher) => batcher.fault)
    return faults.includes(undefined) ? undefined : faults[0]
  }

  get faultOfLetters(): Error | undefined {
    return this.#log.fault ?? this.letters.fault
  }

  /** The batcher of a device's records. */
  of(deviceId: string): Batcher {
    return this.#partitions[partitionOf(deviceId, this.#partitions.length)] as Batcher
  }

  /** Resolves when everything added is settled; what lingers is sent at once. */
  async settled(): Promise<void> {
    for (const batcher of this.#all()) batcher.flush()
    if (!this.#idle) await new Promise<void>((resolve) => this.#settled.push(resolve))
  }

  idle(): void {
    if (this.#settled.length > 0 && this.#idle) for (const resolve of this.#settled.splice(0)) resolve()
  }

  ended(error: Error | null): void {
    if (error !== null && !this.#failing) {
      this.#failing = true
      this.#logger.error({ err: error }, 'the log does not take messages: they are not acknowledged until it does')
    } else if (error === null && this.#failing && !this.#faulty) {
      this.#failing = false
      this.#logger.info('the log takes messages again')
    }
  }

  get #idle(): boolean {
    return this.#all().every((batcher) => batcher.idle)
  }

  get #faulty(): boolean {
    return (
      this.#partitions.some((batcher, index) => (this.#log.faultAt(index) ?? batcher.fault) !== undefined) ||
      this.letters.fault !== undefined
    )
  }

  #all(): readonly Batcher[] {
    return [...this.#partitions, this.letters]
  }
}
