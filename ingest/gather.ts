import type { Logger } from 'pino'
import { RetryableError } from '../processor/contract/errors.ts'
import type { NewRecord } from '../processor/contract/record.ts'
import type { Log } from '../processor/log/log.ts'
import type { Counts } from './counts.ts'
import type { Limits } from './limits.ts'

export type Topic = 'telemetry' | 'dead-letters'

/** Something that waits for the log: an ack, mostly. Settled once, with the reason when the log did not take it. */
export interface Hold {
  settle(error: Error | null): void
}

/** Records gathered into one append per topic, and what waits for them, in the order of receipt. */
class Flight {
  readonly telemetry: NewRecord[] = []
  readonly letters: NewRecord[] = []
  readonly holds: Hold[] = []
  bytes = 0
  qos0 = 0
  qos0Bytes = 0
  /** Appends not answered yet. */
  waiting = 0
  /** Undefined while open; null: durable; or why not. */
  outcome: Error | null | undefined
  deadline: NodeJS.Timeout | undefined
}

/**
 * Gathers records into few appends. Batches are sent in order, without awaiting one another (the log keeps the order of
 * such appends), and settled in order: what waits for a later batch is never settled before what waits for an earlier
 * one, whichever topics they went to. That alone makes acks leave in the order of receipt [MQTT-4.6.0-2].
 */
export class Gather {
  readonly #log: Pick<Log, 'append' | 'fault'>
  readonly #limits: Limits
  readonly #counts: Counts
  readonly #logger: Logger
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
  #qos0Bytes = 0
  #failing = false
  readonly #idle: (() => void)[] = []

  constructor(log: Pick<Log, 'append' | 'fault'>, limits: Limits, counts: Counts, logger: Logger) {
    this.#log = log
    this.#limits = limits
    this.#counts = counts
    this.#logger = logger
  }

  /** Why nothing new should be begun now; undefined while the log takes what it is given. */
  get fault(): Error | undefined {
    if (this.#log.fault !== undefined) return this.#log.fault
    return this.#overdue > 0 ? overdue(this.#limits.appendDeadlineMs) : undefined
  }

  /** `hold` is settled when the record is durable; `bytes`: of the packet it came with. */
  add(topic: Topic, record: NewRecord, bytes: number, hold: Hold): void {
    const flight = this.#put(topic, record, bytes)
    flight.holds.push(hold)
    this.#sealIfFull(flight)
  }

  /** `hold` is settled after everything added before it; it brings no record of its own. */
  follow(hold: Hold): void {
    this.#flight().holds.push(hold)
  }

  /** A record nobody waits for; false when it was dropped, since too many bytes of such records are under way. */
  offer(topic: Topic, record: NewRecord, bytes: number): boolean {
    if (this.#qos0Bytes + bytes > this.#limits.maxQos0Bytes) {
      this.#counts.droppedQos0.add('buffer full')
      return false
    }
    const flight = this.#put(topic, record, bytes)
    this.#qos0Bytes += bytes
    flight.qos0Bytes += bytes
    flight.qos0++
    this.#sealIfFull(flight)
    return true
  }

  /** Resolves when everything added is settled; what lingers is sent at once. */
  async settled(): Promise<void> {
    if (this.#open !== undefined) this.#seal(this.#open)
    if (this.#unsettled.length === 0) return
    await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  #put(topic: Topic, record: NewRecord, bytes: number): Flight {
    const flight = this.#flight()
    if (topic === 'telemetry') flight.telemetry.push(record)
    else flight.letters.push(record)
    flight.bytes += bytes
    return flight
  }

  #flight(): Flight {
    const open = this.#open
    if (open !== undefined) return open
    const flight = new Flight()
    this.#open = flight
    this.#linger = setTimeout(() => this.#lingered(), this.#limits.lingerMs)
    flight.deadline = setTimeout(() => this.#giveUp(flight), this.#limits.appendDeadlineMs).unref()
    return flight
  }

  #sealIfFull(flight: Flight): void {
    const { maxBatchRecords, maxBatchBytes } = this.#limits
    const records = flight.telemetry.length + flight.letters.length
    if (records >= maxBatchRecords || flight.bytes >= maxBatchBytes) this.#seal(flight)
  }

  #lingered(): void {
    // Batches that cannot be sent yet go on filling: fewer and larger appends are what a slow log needs.
    if (this.#underWay >= this.#limits.maxAppends) this.#due = true
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
    while (this.#underWay < this.#limits.maxAppends) {
      const flight = this.#unsent.shift()
      if (flight === undefined) break
      const before = this.#failedBefore()
      if (before !== undefined) {
        this.#decide(flight, before)
        continue
      }
      if (flight.telemetry.length > 0) this.#append(flight, 'telemetry', flight.telemetry)
      if (flight.letters.length > 0) this.#append(flight, 'dead-letters', flight.letters)
      if (flight.waiting === 0) this.#decide(flight, null)
    }
    if (this.#due && this.#open !== undefined && this.#underWay < this.#limits.maxAppends) this.#seal(this.#open)
  }

  #append(flight: Flight, topic: Topic, records: readonly NewRecord[]): void {
    flight.waiting++
    this.#underWay++
    this.#counts.appendsUnderWay++
    this.#counts.batchRecords.observe(records.length)
    const began = performance.now()
    const ended = (error: Error | null): void => {
      this.#underWay--
      this.#counts.appendsUnderWay--
      this.#counts.appendSeconds.observe((performance.now() - began) / 1000)
      flight.waiting--
      if (flight.outcome !== undefined) {
        this.#overdue--
      } else if (error !== null) {
        this.#overdue += flight.waiting
        this.#fail(flight, error)
      } else if (flight.waiting === 0) {
        this.#decide(flight, null)
      }
      this.#note(error)
      this.#send()
    }
    Promise.try(() => this.#log.append(topic, records)).then(
      () => ended(null),
      (error: unknown) => ended(error instanceof Error ? error : new Error(String(error))),
    )
  }

  #giveUp(flight: Flight): void {
    this.#overdue += flight.waiting
    const error = overdue(this.#limits.appendDeadlineMs)
    this.#fail(flight, error)
    this.#note(error)
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
    if (outcome !== null) this.#counts.failedAppends.add('code' in outcome ? String(outcome.code) : outcome.name)
    for (;;) {
      const head = this.#unsettled[0]
      if (head?.outcome === undefined) break
      this.#unsettled.shift()
      this.#settle(head, head.outcome)
    }
    if (this.#unsettled.length === 0 && this.#open === undefined) for (const resolve of this.#idle.splice(0)) resolve()
  }

  #settle(flight: Flight, outcome: Error | null): void {
    this.#qos0Bytes -= flight.qos0Bytes
    if (outcome !== null && flight.qos0 > 0) this.#counts.droppedQos0.add('append failed', flight.qos0)
    const holds = flight.holds
    for (let i = 0; i < holds.length; i++) (holds[i] as Hold).settle(outcome)
  }

  #note(error: Error | null): void {
    if (error !== null && !this.#failing) {
      this.#failing = true
      this.#logger.error({ err: error }, 'the log does not take messages: nothing is acknowledged until it does')
    } else if (error === null && this.#failing && this.fault === undefined) {
      this.#failing = false
      this.#logger.info('the log takes messages again')
    }
  }
}

function overdue(deadlineMs: number): RetryableError {
  return new RetryableError('LOG_UNAVAILABLE', `the log has not answered an append within ${deadlineMs} ms`)
}
