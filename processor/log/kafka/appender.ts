import type { Logger } from 'pino'
import type { Counter } from 'prom-client'
import { RetryableError, type TidemarkError } from '../../contract/errors.ts'
import { partitionOf } from '../../contract/partition.ts'
import { MAX_RECORD_BYTES } from '../../contract/record.ts'
import { pause } from '../../runtime/pause.ts'
import type { NewRecord, Position } from '../log.ts'
import type { KafkaCluster } from './cluster.ts'
import type { KafkaHealth } from './health.ts'
import { asTidemark, isTransient, typeOf } from './protocol/errors.ts'
import { KafkaWindows, type PartitionBatch, produce } from './protocol/produce.ts'
import {
  encodeBatch,
  MAX_BATCH_BYTES,
  nextSequence,
  type Producer,
  sizeBound,
  tooLarge,
} from './protocol/record-batch.ts'

/** Bytes of the largest request; a broker takes 100 MB by default (socket.request.max.bytes). */
const MAX_REQUEST_BYTES = 8 * 1024 * 1024
/** Bytes of the first request: 1.3 s of a link of 100 kB/s. */
const FIRST_REQUEST_BYTES = 128 * 1024
/** Requests become smaller while they take longer than this, ms: a slow one must not look like silence. */
const SLOW_MS = 1000
const RETRY_MS = 50
/** A batch that fails for this long is a fault, not just a leader that moved, ms. */
const FAULT_AFTER_MS = 1000
/** A batch without any answer for this long is a fault, ms. */
const SILENT_AFTER_MS = 2500
/** Interval of the check for appends that waited too long, ms. */
const SWEEP_MS = 100
const TRANSACTION_TIMEOUT_MS = 60_000
const LANE = 'append'

export interface AppenderOptions {
  /** Bytes of queued records beyond which append rejects. */
  readonly maxQueuedBytes: number
  /** How long a record waits while brokers refuse it or are silent, ms. */
  readonly timeoutMs: number
  readonly logger: Logger
  readonly records: Counter<'topic'>
}

/**
 * An idempotent producer (KIP-98). Each partition has one batch under way, and each broker one request; what is
 * appended meanwhile gathers for the next. A batch is repeated with its sequence number, so it is in the log once and
 * in order.
 */
export class KafkaAppender {
  readonly #cluster: KafkaCluster
  readonly #health: KafkaHealth
  readonly #options: AppenderOptions
  readonly #lanes = new Map<string, Lane[]>()
  readonly #busy = new Set<number>()
  readonly #closing = new AbortController()
  readonly #windowsByLeader = new KafkaWindows(FIRST_REQUEST_BYTES, MAX_REQUEST_BYTES, SLOW_MS)
  /** Given to lanes that have none. */
  #producer: Producer | undefined
  #renewing = false
  #queuedBytes = 0
  #woken = false
  #sweeper: NodeJS.Timeout | undefined
  #nextKeyless = 0

  constructor(cluster: KafkaCluster, health: KafkaHealth, options: AppenderOptions) {
    this.#cluster = cluster
    this.#health = health
    this.#options = options
  }

  async write(topic: string, partitions: number, record: NewRecord): Promise<Position> {
    const position = await this.#append(topic, partitions, [record])
    if (position !== undefined) return position
    // A broker that has forgotten the batch knows it for a duplicate, and no more.
    throw new RetryableError('LOG_UNAVAILABLE', `a record is in ${topic}, but where is not known`)
  }

  async append(topic: string, partitions: number, records: readonly NewRecord[]): Promise<void> {
    if (records.length > 0) await this.#append(topic, partitions, records)
  }

  /** Resolves with the position of the last record, if the broker told it. */
  #append(topic: string, partitions: number, records: readonly NewRecord[]): Promise<Position | undefined> {
    if (this.#closing.signal.aborted) return Promise.reject(closed())
    if (this.#queuedBytes > this.#options.maxQueuedBytes) {
      const reason = `${this.#queuedBytes} bytes wait for Kafka already`
      return Promise.reject(new RetryableError('LOG_UNAVAILABLE', reason, this.#health.fault))
    }
    const bounds = records.map(sizeBound)
    for (const bound of bounds) if (bound > MAX_RECORD_BYTES) return Promise.reject(tooLarge(bound))
    return new Promise((resolve, reject) => {
      const append: Append = {
        since: performance.now(),
        left: records.length,
        error: undefined,
        last: undefined,
        resolve: () => resolve(append.last),
        reject,
      }
      const lanes = this.#lanesOf(topic, partitions)
      for (const [i, record] of records.entries()) {
        const index = record.key === null ? this.#nextKeyless++ % partitions : partitionOf(record.key, partitions)
        const lane = lanes[index] as Lane
        lane.pending.push(record)
        lane.bounds.push(bounds[i] as number)
        this.#queuedBytes += bounds[i] as number
        const last = lane.appends.at(-1)
        if (last?.append === append) last.count++
        else lane.appends.push({ append, count: 1 })
      }
      this.#wake()
    })
  }

  /** Whether records wait for the partition. */
  waits(topic: string, partition: number): boolean {
    const lane = this.#lanes.get(topic)?.[partition]
    return lane !== undefined && waits(lane)
  }

  /**
   * Gives up appends that have waited for too long by `now`: a broker that hangs would keep them while its connection
   * lives.
   */
  #sweep(now: number): void {
    const { timeoutMs, logger } = this.#options
    let waiting = false
    for (const lanes of this.#lanes.values()) {
      for (const lane of lanes) {
        if (!waits(lane)) continue
        waiting = true
        const waited = now - silentSince(lane)
        const { topic, partition } = lane
        if (waited > SILENT_AFTER_MS) this.#health.failAt(topic, partition, silence(SILENT_AFTER_MS))
        if (waited <= timeoutMs) continue
        logger.warn({ topic, partition, timeoutMs }, 'an append was given up')
        this.#fail(lane, silence(timeoutMs))
      }
    }
    if (waiting) return
    clearInterval(this.#sweeper)
    this.#sweeper = undefined
  }

  /** Rejects all that has not been sent. */
  close(): void {
    this.#closing.abort()
    clearInterval(this.#sweeper)
    for (const lanes of this.#lanes.values()) {
      for (const lane of lanes) if (waits(lane) && !lane.sending) this.#fail(lane, closed())
    }
  }

  #lanesOf(topic: string, partitions: number): Lane[] {
    let lanes = this.#lanes.get(topic)
    if (lanes === undefined) {
      lanes = Array.from({ length: partitions }, (_, partition) => newLane(topic, partition))
      this.#lanes.set(topic, lanes)
    }
    return lanes
  }

  /** Appends of one turn of the event loop travel together. */
  #wake(): void {
    if (this.#woken || this.#closing.signal.aborted) return
    this.#woken = true
    // Timers run before sockets are read: answers that arrived while this process stood still are read first. `now` is
    // the timer's: after a later stall nothing has been read since.
    const look = (now: number) => setImmediate(() => this.#sweep(now))
    this.#sweeper ??= setInterval(() => look(performance.now()), SWEEP_MS).unref()
    setImmediate(() => {
      this.#woken = false
      this.#dispatch().catch((error: unknown) => this.#failAll(error))
    })
  }

  async #dispatch(): Promise<void> {
    const { topics } = await this.#cluster.metadata()
    const producer = this.#producer
    const ready = new Map<number, Lane[]>()
    for (const [topic, lanes] of this.#lanes) {
      const leaders = topics.get(topic)?.leaders ?? []
      for (const lane of lanes) {
        if (lane.sending || !waits(lane)) continue
        const leader = leaders[lane.partition] ?? -1
        if (this.#busy.has(leader)) continue
        lane.producer ??= producer
        if (lane.producer === undefined) {
          void this.#renew()
          continue
        }
        const forLeader = ready.get(leader)
        if (forLeader === undefined) ready.set(leader, [lane])
        else forLeader.push(lane)
      }
    }
    for (const [leader, lanes] of ready) void this.#send(leader, lanes)
  }

  /** Meanwhile lanes that have a producer go on. */
  async #renew(): Promise<void> {
    if (this.#renewing) return
    this.#renewing = true
    try {
      this.#producer = await this.#newProducer()
    } catch (error) {
      this.#failAll(error, (lane) => lane.producer === undefined)
    } finally {
      this.#renewing = false
      this.#wake()
    }
  }

  #newProducer(): Promise<Producer> {
    return this.#cluster.retry(this.#options.timeoutMs, this.#closing.signal, async () => {
      const { requests } = await this.#cluster.anyConnection(LANE)
      const init = await requests.initProducerId({ transactionTimeout: TRANSACTION_TIMEOUT_MS })
      return { id: Number(init.producerId), epoch: init.producerEpoch }
    })
  }

  /** Never rejects: appends learn of failures. */
  async #send(leader: number, ready: readonly Lane[]): Promise<void> {
    this.#busy.add(leader)
    const batches: Batch[] = []
    const sent = new Map<Lane, Batch>()
    let bytes = 0
    // The longest waiting first: there may be room for few.
    const window = this.#windowsByLeader.of(leader)
    const room = window.bytes
    for (const lane of ready.toSorted((a, b) => waitsSince(a) - waitsSince(b))) {
      if (bytes >= room) break
      lane.sending = true
      lane.batch ??= this.#cut(lane, Math.min(MAX_BATCH_BYTES, room - bytes))
      bytes += lane.batch.bytes.length
      batches.push(lane.batch)
      sent.set(lane, lane.batch)
    }
    // A partition with much to send has one batch in a request, so it alone does not fill a window.
    let isFull = bytes > room / 2 && ready.some(({ pending }) => pending.length > 0)
    let retry = false
    let began: number | undefined
    try {
      const connection = await this.#cluster.connection(LANE, leader)
      began = performance.now()
      for (const { topic, partition, baseOffset, error } of await produce(connection, null, batches)) {
        const lane = this.#lanes.get(topic)?.[partition] as Lane
        const batch = sent.get(lane)
        if (error === undefined && batch !== undefined) place(batch, baseOffset)
        if (this.#settle(lane, batch, error)) retry = true
      }
      for (const lane of ready) if (!sent.has(lane)) lane.progress = performance.now()
    } catch (error) {
      isFull = false
      for (const [lane, batch] of sent) if (this.#settle(lane, batch, error)) retry = true
    }
    if (began !== undefined) window.took(bytes, performance.now() - began, isFull)
    if (retry && !this.#closing.signal.aborted) {
      await pause(RETRY_MS, this.#closing.signal)
      await this.#cluster.refresh().catch((error: unknown) => this.#health.fail(error))
    }
    this.#busy.delete(leader)
    for (const lane of sent.keys()) lane.sending = false
    if (this.#closing.signal.aborted) this.close()
    else this.#wake()
  }

  /** Ends the batch of `lane`, or returns true when it is to be sent again. A batch that was given up has ended. */
  #settle(lane: Lane, batch: Batch | undefined, error: unknown): boolean {
    if (batch === undefined || lane.batch !== batch) return isTransient(error)
    if (error === undefined || typeOf(error) === 'DUPLICATE_SEQUENCE_NUMBER') {
      lane.batch = undefined
      lane.progress = performance.now()
      lane.sequence = nextSequence(lane.sequence, batch.count)
      this.#queuedBytes -= batch.size
      this.#options.records.inc({ topic: lane.topic }, batch.count)
      this.#health.succeedAt(lane.topic, lane.partition)
      complete(batch.appends, undefined)
      return false
    }
    const waited = performance.now() - silentSince(lane)
    if (isTransient(error) && waited < this.#options.timeoutMs && !this.#closing.signal.aborted) {
      if (waited > FAULT_AFTER_MS) this.#health.failAt(lane.topic, lane.partition, error)
      return true
    }
    const { topic, partition } = lane
    if (isTransient(error) && !this.#closing.signal.aborted) this.#health.failAt(topic, partition, error)
    this.#options.logger.warn({ err: error, topic, partition }, 'an append failed')
    this.#fail(lane, asTidemark(error, `${topic} ${partition}`))
    return false
  }

  /**
   * Rejects all that waits for the partition: a later record must not be in the log without an earlier one. The
   * sequence numbers have a gap now, so a new producer begins.
   */
  #fail(lane: Lane, error: TidemarkError): void {
    const { batch, appends } = lane
    if (batch !== undefined) {
      this.#queuedBytes -= batch.size
      complete(batch.appends, error)
    }
    for (const bound of lane.bounds) this.#queuedBytes -= bound
    Object.assign(lane, newLane(lane.topic, lane.partition), { sending: lane.sending })
    this.#producer = undefined
    complete(appends, error)
  }

  #failAll(error: unknown, which: (lane: Lane) => boolean = () => true): void {
    if (!this.#closing.signal.aborted) this.#health.fail(error)
    for (const lanes of this.#lanes.values()) {
      for (const lane of lanes) {
        if (waits(lane) && !lane.sending && which(lane)) this.#fail(lane, asTidemark(error, lane.topic))
      }
    }
  }

  #cut(lane: Lane, maxBytes: number): Batch {
    const { count, size } = fitting(lane, maxBytes)
    const { topic, partition, pending, sequence } = lane
    const bytes = encodeBatch(pending, 0, count, size, lane.producer as Producer, sequence, false)
    const appends = takeAppends(lane, count)
    lane.pending = count === pending.length ? [] : pending.slice(count)
    lane.bounds = lane.pending.length === 0 ? [] : lane.bounds.slice(count)
    return { topic, partition, bytes, appends, count, size }
  }
}

function closed(): RetryableError {
  return new RetryableError('LOG_CLOSED', 'the log is closed')
}

function silence(ms: number): RetryableError {
  return new RetryableError('LOG_UNAVAILABLE', `Kafka has not answered an append within ${ms} ms`)
}

/** One call of append(). */
interface Append {
  /** By performance.now(). */
  readonly since: number
  left: number
  error: TidemarkError | undefined
  /** Position of its last record that was sent; undefined until a broker tells. */
  last: Position | undefined
  resolve(): void
  reject(error: Error): void
}

export interface Batch extends PartitionBatch {
  readonly appends: readonly { readonly append: Append; readonly count: number }[]
  readonly count: number
  readonly size: number
}

/** Records that wait for one partition, in order. At most one batch is under way. */
export interface Lane {
  readonly topic: string
  readonly partition: number
  producer: Producer | undefined
  sequence: number
  pending: NewRecord[]
  bounds: number[]
  appends: { append: Append; count: number }[]
  batch: Batch | undefined
  /** A request with a batch of the lane is under way. The next waits for its end, even if the batch was given up. */
  sending: boolean
  /** When a record was last taken, or the leader answered a request that had no room for this lane. */
  progress: number
}

function waits({ batch, pending }: Lane): boolean {
  return batch !== undefined || pending.length > 0
}

/** When the longest waiting append began. */
function waitsSince({ batch, appends }: Pick<Lane, 'batch' | 'appends'>): number {
  return (batch?.appends[0] ?? appends[0])?.append.since ?? Number.POSITIVE_INFINITY
}

/** Since when the leader has been silent about this lane. */
function silentSince(lane: Lane): number {
  return Math.max(waitsSince(lane), lane.progress)
}

function newLane(topic: string, partition: number): Lane {
  return {
    topic,
    partition,
    producer: undefined,
    sequence: 0,
    pending: [],
    bounds: [],
    appends: [],
    batch: undefined,
    sending: false,
    progress: 0,
  }
}

/** How many pending records, from the first on, fit into `maxBytes`; at least one. */
function fitting({ pending, bounds }: Lane, maxBytes: number): { count: number; size: number } {
  let size = 0
  let count = 0
  while (count < pending.length) {
    const bound = bounds[count] as number
    if (count > 0 && size + bound > maxBytes) break
    size += bound
    count++
  }
  return { count, size }
}

/** Takes out the calls that the first `count` records belong to. */
function takeAppends(lane: Lane, count: number): { append: Append; count: number }[] {
  const taken: { append: Append; count: number }[] = []
  let left = count
  while (left > 0) {
    const first = lane.appends[taken.length] as { append: Append; count: number }
    const part = Math.min(first.count, left)
    taken.push({ append: first.append, count: part })
    left -= part
    if (part < first.count) {
      first.count -= part
      lane.appends = lane.appends.slice(taken.length - 1)
      return taken
    }
  }
  lane.appends = lane.appends.slice(taken.length)
  return taken
}

function place({ appends, partition }: Batch, baseOffset: number): void {
  let end = baseOffset
  for (const { append, count } of appends) {
    end += count
    append.last = { partition, offset: end - 1 }
  }
}

function complete(appends: readonly { append: Append; count: number }[], error: TidemarkError | undefined): void {
  for (const { append, count } of appends) {
    append.left -= count
    append.error ??= error
    if (append.left > 0) continue
    if (append.error === undefined) append.resolve()
    else append.reject(append.error)
  }
}
