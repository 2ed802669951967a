import type { Logger } from 'pino'
import { RetryableError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import { isDeviceId, type NewRecord } from '../../processor/contract/record.ts'
import type { Log } from '../../processor/log/log.ts'
import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'

/** The part of the log that ingest uses. */
export type IngestLog = Pick<Log, 'append' | 'fault' | 'faultAt' | 'relief'> & {
  readonly identity: Pick<Log['identity'], 'partitions'>
}

/** Something that waits for the log, mostly an ack. It is settled once for each ticket, with an error if the append failed. */
export interface Hold {
  settle(error: Error | null, ticket: number): void
}

/**
 * Appends records to the log through a batcher for each partition of telemetry, and one for dead letters: a partition that
 * cannot be written delays nothing but its own devices.
 */
export class Appender {
  readonly limits: Limits
  readonly metrics: IngestMetrics
  /** Bytes of QoS 0 messages that the log has not taken. */
  qos0Bytes = 0
  readonly letters: Batcher
  readonly #log: IngestLog
  readonly #logger: Logger
  readonly #partitions: readonly Batcher[]
  #failing = false
  readonly #settled: (() => void)[] = []

  constructor(log: IngestLog, limits: Limits, metrics: IngestMetrics, logger: Logger) {
    this.limits = limits
    this.metrics = metrics
    this.#log = log
    this.#logger = logger
    const telemetry = (records: readonly NewRecord[]): Promise<void> => log.append('telemetry', records)
    this.#partitions = Array.from({ length: log.identity.partitions }, () => new Batcher(telemetry, this))
    this.letters = new Batcher((records) => log.append('dead-letters', records), this)
  }

  /** Defined while the log asks to let nothing in; resolves when it does no more. */
  get relief(): Promise<void> | undefined {
    return this.#log.relief
  }

  /** Why the log takes no records of the device now, if so. */
  faultOf(deviceId: string): Error | undefined {
    const index = partitionOf(deviceId, this.#partitions.length)
    return this.#log.faultAt(index) ?? this.#partitions[index]?.fault
  }

  /** The same for a client: one whose id is no device id may speak for devices of any partition. */
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

  of(deviceId: string): Batcher {
    return this.#partitions[partitionOf(deviceId, this.#partitions.length)] as Batcher
  }

  /** Sends all batches at once; resolves when every hold is settled. */
  async settled(): Promise<void> {
    for (const batcher of this.#all()) batcher.flush()
    if (!this.#idle) await new Promise<void>((resolve) => this.#settled.push(resolve))
  }

  /** A batcher has nothing left to settle. */
  idle(): void {
    if (this.#settled.length > 0 && this.#idle) for (const resolve of this.#settled.splice(0)) resolve()
  }

  /** An append ended, or was given up. */
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

/** A deadline that fires this much late, ms, says that the process stood still: the batch gets its time once more. */
const STOOD_STILL_MS = 100

/** Records of one append, and what waits for them, in the order of receipt. */
class Batch {
  readonly records: NewRecord[] = []
  readonly holds: Hold[] = []
  readonly tickets: number[] = []
  bytes = 0
  qos0 = 0
  qos0Bytes = 0
  sent = false
  /** Undefined: not known yet; null: durable. */
  outcome: Error | null | undefined
  deadline: NodeJS.Timeout | undefined
  /** When the deadline passes, by performance.now(). */
  dueAt = 0
  renewed = false
}

/**
 * Gathers the records of one partition into few appends. Batches are sent in order, without waiting for each other (the
 * log keeps the order of concurrent appends), and settled in order.
 */
export class Batcher {
  readonly #append: (records: readonly NewRecord[]) => Promise<void>
  readonly #appender: Appender
  #open: Batch | undefined
  #linger: NodeJS.Timeout | undefined
  /** The open batch has lingered, and waits for an append to end. */
  #due = false
  readonly #unsent: Batch[] = []
  /** Closed batches that are not settled, sent or not. */
  readonly #unsettled: Batch[] = []
  #inFlight = 0
  /** Appends under way whose batch was given up. */
  #overdue = 0

  constructor(append: (records: readonly NewRecord[]) => Promise<void>, appender: Appender) {
    this.#append = append
    this.#appender = appender
  }

  /** Why the log takes no records of the partition now, if so. */
  get fault(): Error | undefined {
    return this.#overdue > 0 ? overdue(this.#appender.limits.appendDeadlineMs) : undefined
  }

  get idle(): boolean {
    return this.#unsettled.length === 0 && this.#open === undefined
  }

  /** Settles `hold` when the record is durable. */
  add(record: NewRecord, bytes: number, hold: Hold, ticket: number): void {
    const batch = this.#put(record, bytes)
    batch.holds.push(hold)
    batch.tickets.push(ticket)
    this.#sealIfFull(batch)
  }

  /** Settles `hold`, which has no record, after everything added before it. */
  follow(hold: Hold, ticket: number): void {
    const batch = this.#current()
    batch.holds.push(hold)
    batch.tickets.push(ticket)
  }

  /** Adds a record of QoS 0; false when it was dropped because too many bytes of such records wait. */
  offer(record: NewRecord, bytes: number): boolean {
    const appender = this.#appender
    if (appender.qos0Bytes + bytes > appender.limits.maxQos0Bytes) {
      appender.metrics.droppedQos0.add('buffer full')
      return false
    }
    const batch = this.#put(record, bytes)
    appender.qos0Bytes += bytes
    batch.qos0Bytes += bytes
    batch.qos0++
    this.#sealIfFull(batch)
    return true
  }

  /** Sends the open batch at once. */
  flush(): void {
    if (this.#open !== undefined) this.#seal(this.#open)
  }

  #put(record: NewRecord, bytes: number): Batch {
    const batch = this.#current()
    batch.records.push(record)
    batch.bytes += bytes
    return batch
  }

  #current(): Batch {
    const open = this.#open
    if (open !== undefined) return open
    const batch = new Batch()
    this.#open = batch
    this.#linger = setTimeout(() => this.#lingered(), this.#appender.limits.lingerMs)
    this.#await(batch)
    return batch
  }

  #sealIfFull(batch: Batch): void {
    const { maxBatchRecords, maxBatchBytes } = this.#appender.limits
    if (batch.records.length >= maxBatchRecords || batch.bytes >= maxBatchBytes) this.#seal(batch)
  }

  #lingered(): void {
    // A batch that cannot be sent yet goes on filling: a slow log needs fewer and larger appends.
    if (this.#inFlight >= this.#appender.limits.maxAppends) this.#due = true
    else if (this.#open !== undefined) this.#seal(this.#open)
  }

  #seal(batch: Batch): void {
    this.#close(batch)
    this.#send()
  }

  #close(batch: Batch): void {
    clearTimeout(this.#linger)
    this.#due = false
    this.#open = undefined
    this.#unsent.push(batch)
    this.#unsettled.push(batch)
  }

  #send(): void {
    const { maxAppends } = this.#appender.limits
    while (this.#inFlight < maxAppends) {
      const batch = this.#unsent.shift()
      if (batch === undefined) break
      const before = this.#failedBefore()
      if (before !== undefined) this.#decide(batch, before)
      else if (batch.records.length > 0) this.#begin(batch)
      else this.#decide(batch, null)
    }
    if (this.#due && this.#open !== undefined && this.#inFlight < maxAppends) this.#seal(this.#open)
  }

  #begin(batch: Batch): void {
    const { metrics } = this.#appender
    batch.sent = true
    this.#inFlight++
    metrics.appendsUnderWay++
    metrics.batchRecords.observe(batch.records.length)
    const began = performance.now()
    const ended = (error: Error | null): void => {
      this.#inFlight--
      metrics.appendsUnderWay--
      metrics.appendSeconds.observe((performance.now() - began) / 1000)
      if (batch.outcome !== undefined) this.#overdue--
      else if (error !== null) this.#fail(batch, error)
      else this.#decide(batch, null)
      this.#appender.ended(error)
      this.#send()
    }
    Promise.try(() => this.#append(batch.records)).then(
      () => ended(null),
      (error: unknown) => ended(error instanceof Error ? error : new Error(String(error))),
    )
  }

  #await(batch: Batch): void {
    const { appendDeadlineMs } = this.#appender.limits
    batch.dueAt = performance.now() + appendDeadlineMs
    batch.deadline = setTimeout(() => this.#late(batch), appendDeadlineMs).unref()
  }

  /** A process that stood still has not read the log's answer, and may not even have sent the batch. */
  #late(batch: Batch): void {
    if (batch.renewed || performance.now() - batch.dueAt < STOOD_STILL_MS) return this.#giveUp(batch)
    batch.renewed = true
    this.#await(batch)
  }

  #giveUp(batch: Batch): void {
    if (batch.sent) this.#overdue++
    const error = overdue(this.#appender.limits.appendDeadlineMs)
    this.#fail(batch, error)
    this.#appender.ended(error)
  }

  /**
   * Batches that are not sent fail with it: its connections close, their clients send everything again, and later messages
   * of theirs must not be in the log before earlier ones.
   */
  #fail(batch: Batch, error: Error): void {
    if (this.#open !== undefined) this.#close(this.#open)
    // A set, as the batch itself may be unsent.
    for (const failed of new Set([batch, ...this.#unsent.splice(0)])) this.#decide(failed, error)
  }

  /** The error of a failed batch that is not settled, as an earlier batch is in batch: its connections are still open. */
  #failedBefore(): Error | undefined {
    return this.#unsettled.find(({ outcome }) => outcome instanceof Error)?.outcome ?? undefined
  }

  #decide(batch: Batch, outcome: Error | null): void {
    clearTimeout(batch.deadline)
    batch.outcome = outcome
    if (outcome !== null)
      this.#appender.metrics.failedAppends.add('code' in outcome ? String(outcome.code) : outcome.name)
    for (;;) {
      const head = this.#unsettled[0]
      if (head?.outcome === undefined) break
      this.#unsettled.shift()
      this.#settle(head, head.outcome)
    }
    if (this.idle) this.#appender.idle()
  }

  #settle(batch: Batch, outcome: Error | null): void {
    const { holds, tickets, qos0, qos0Bytes } = batch
    this.#appender.qos0Bytes -= qos0Bytes
    if (outcome !== null && qos0 > 0) this.#appender.metrics.droppedQos0.add('append failed', qos0)
    for (let i = 0; i < holds.length; i++) (holds[i] as Hold).settle(outcome, tickets[i] as number)
  }
}

function overdue(deadlineMs: number): RetryableError {
  return new RetryableError('LOG_UNAVAILABLE', `the log has not answered an append within ${deadlineMs} ms`)
}
