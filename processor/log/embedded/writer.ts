import type { Logger } from 'pino'
import { ConfigurationError, FencedError, RetryableError, reasonOf, wayOut } from '../../contract/errors.ts'
import { partitionOf } from '../../contract/partition.ts'
import { MAX_RECORD_BYTES, type NewRecord, type Offset, type Position } from '../../contract/record.ts'
import { Backoff, pause } from '../../runtime/pause.ts'
import type { Topic } from '../log.ts'
import type { EmbeddedMetrics } from './embedded-log.ts'
import type { EmbeddedPartition } from './partition.ts'
import { Arena, MAX_KEY_BYTES, sizeBound } from './record-batch.ts'
import { type EmbeddedStorage, encodeNumbers, errorCode, type Operation, storageKey } from './storage.ts'

/** Bytes of one write: they are encoded in one go, so this keeps the event loop free after a few ms. */
const MAX_WRITE_BYTES = 1024 * 1024
/** Milliseconds of the first and the longest wait between tries to write again after a failure. */
const MIN_RETRY_MS = 100
const MAX_RETRY_MS = 2000

/** The newest epoch of a partition's claims, and its last commit. */
export interface ClaimPosition {
  readonly epoch: number
  readonly input: Offset
  readonly changelogEnd: Offset
}

interface Append {
  readonly kind: 'append'
  readonly topic: 'telemetry' | 'dead-letters'
  readonly records: readonly NewRecord[]
  readonly bytes: number
  /** Called with the place of the last record once it is durable. */
  readonly placed: ((position: Position) => void) | undefined
  resolve(): void
  reject(error: Error): void
}

interface Move {
  readonly kind: 'claim' | 'commit'
  readonly partition: number
  readonly epoch: number
  readonly changelog: readonly NewRecord[]
  readonly deadLetters: readonly NewRecord[]
  readonly next: Offset
  resolve(position: ClaimPosition): void
  reject(error: Error): void
}

export interface WriterOptions {
  readonly partitions: Readonly<Record<Topic, readonly EmbeddedPartition[]>>
  readonly positions: ClaimPosition[]
  /** Beyond this many bytes of queued appends, append rejects. */
  readonly maxQueuedBytes: number
  /** Bytes that must be free on a volume that was full before writes are tried again. */
  readonly minFreeBytes: number
  readonly logger: Logger
  readonly metrics: EmbeddedMetrics
  /** Called after a write that closed a segment: retention or compaction may be due. */
  readonly onRoll: () => void
  readonly onCommit: (partition: number) => void
  /** Opens the database again, and reloads all partitions and positions from it. */
  readonly reopen: () => Promise<void>
}

/**
 * The only writer. Requests that come during a write wait and share the next one, which is atomic, so a busier writer
 * puts more records into each write. Offsets are given in the order of the calls.
 */
export class EmbeddedWriter {
  readonly #storage: EmbeddedStorage
  readonly #options: WriterOptions
  readonly #closing = new AbortController()
  #queue: (Append | Move)[] = []
  #queuedBytes = 0
  // The database owns the bytes of a write until it answers, and there is one write at a time.
  readonly #arena = new Arena(2 * MAX_WRITE_BYTES)
  #running: Promise<void> | undefined
  #recovered: PromiseWithResolvers<void> | undefined
  #nextKeyless = 0
  #doubt: RetryableError | undefined
  fault: RetryableError | undefined

  constructor(storage: EmbeddedStorage, options: WriterOptions) {
    this.#storage = storage
    this.#options = options
  }

  async write(record: NewRecord): Promise<Position> {
    let position: Position | undefined
    await this.append('telemetry', [record], (placed) => {
      position = placed
    })
    return position as Position
  }

  append(
    topic: 'telemetry' | 'dead-letters',
    records: readonly NewRecord[],
    placed?: (position: Position) => void,
  ): Promise<void> {
    if (records.length === 0) return Promise.resolve()
    let bytes = 0
    for (const record of records) {
      const size = sizeBound(record)
      const refusal = tooLarge(record, size)
      if (refusal !== undefined) return Promise.reject(refusal)
      bytes += size
    }
    const refusal = this.#refusal()
    if (refusal !== undefined) return Promise.reject(refusal)
    if (this.#queuedBytes > 0 && this.#queuedBytes + bytes > this.#options.maxQueuedBytes) {
      const why = `${this.#queuedBytes} bytes wait to be written to the log in ${this.#storage.folder}`
      return Promise.reject(new RetryableError('LOG_UNAVAILABLE', `${why}: append again when some have been`))
    }
    this.#queuedBytes += bytes
    return new Promise((resolve, reject) => {
      this.#queue.push({ kind: 'append', topic, records, bytes, placed, resolve, reject })
      this.#start()
    })
  }

  inputEnd(partition: number): Offset {
    return (this.#options.partitions.telemetry[partition] as EmbeddedPartition).end
  }

  /** Claims the partition at the next epoch. */
  claim(partition: number): Promise<ClaimPosition> {
    return this.#move({ kind: 'claim', partition, epoch: 0, changelog: [], deadLetters: [], next: 0 })
  }

  commit(
    partition: number,
    epoch: number,
    work: { changelog: readonly NewRecord[]; deadLetters: readonly NewRecord[]; next: Offset },
  ): Promise<ClaimPosition> {
    const { changelog, deadLetters, next } = work
    for (const records of [changelog, deadLetters]) {
      for (const record of records) {
        const refusal = tooLarge(record, sizeBound(record))
        if (refusal !== undefined) return Promise.reject(refusal)
      }
    }
    return this.#move({ kind: 'commit', partition, epoch, changelog, deadLetters, next })
  }

  /** New writes may be lost although none fails, so the log recovers as after a failed write. */
  doubt(reason: RetryableError): void {
    if (this.fault === undefined) this.#doubt = reason
    this.#start()
  }

  /** Resolves when writes work, or the writer is closed. */
  async healthy(): Promise<void> {
    while (this.#recovered !== undefined && !this.#closing.signal.aborted) await this.#recovered.promise
  }

  /** Writes all that is queued, and takes nothing more. */
  async close(): Promise<void> {
    this.#closing.abort()
    await this.#running
  }

  #move(move: Omit<Move, 'resolve' | 'reject'>): Promise<ClaimPosition> {
    const refusal = this.#refusal()
    if (refusal !== undefined) return Promise.reject(refusal)
    return new Promise((resolve, reject) => {
      this.#queue.push({ ...move, resolve, reject })
      this.#start()
    })
  }

  #refusal(): RetryableError | undefined {
    if (!this.#closing.signal.aborted) return this.fault
    return new RetryableError('LOG_CLOSED', `the log in ${this.#storage.folder} is closed`)
  }

  #start(): void {
    this.#running ??= this.#run()
  }

  async #run(): Promise<void> {
    // Other requests in this turn of the event loop share the write.
    await Promise.resolve()
    while (this.#queue.length > 0 || this.#doubt !== undefined) await this.#write()
    this.#running = undefined
  }

  async #write(): Promise<void> {
    const { positions, metrics, onRoll, onCommit } = this.#options
    const moved = new Map<number, ClaimPosition>()
    const written = new Map<Append | Move, ClaimPosition | undefined>()
    const touched: EmbeddedPartition[] = []
    const operations: Operation[] = []
    let rolled = false
    this.#arena.reset()
    try {
      if (this.#doubt !== undefined) throw this.#doubt
      this.#stage(written, touched, moved)
      for (const partition of touched) if (partition.encode(operations, this.#arena)) rolled = true
      for (const [index, { epoch, input, changelogEnd }] of moved) {
        const key = storageKey('position', 'telemetry', index)
        operations.push({ type: 'put', key, value: encodeNumbers(epoch, input, changelogEnd) })
      }
      if (operations.length > 0) await this.#storage.write(operations)
    } catch (error) {
      await this.#fail(error, written.keys())
      return
    }
    for (const partition of touched) {
      metrics.records[partition.topic].inc(partition.stagedEnd - partition.end)
      partition.publish()
    }
    for (const [index, position] of moved) positions[index] = position
    metrics.writes.inc()
    for (const [work, position] of written) {
      if (work.kind === 'append') work.resolve()
      else work.resolve(position as ClaimPosition)
    }
    for (const index of moved.keys()) onCommit(index)
    if (rolled) onRoll()
  }

  /** Moves work from the queue to `written`, and its records to their partitions, up to the bound of one write. */
  #stage(
    written: Map<Append | Move, ClaimPosition | undefined>,
    touched: EmbeddedPartition[],
    moved: Map<number, ClaimPosition>,
  ): void {
    const { partitions, positions } = this.#options
    let bytes = 0
    let taken = 0
    for (const work of this.#queue) {
      if (bytes >= MAX_WRITE_BYTES) break
      taken++
      if (work.kind === 'append') {
        this.#stageAppend(work, touched)
        bytes += work.bytes
        written.set(work, undefined)
        continue
      }
      const index = work.partition
      let position: ClaimPosition = moved.get(index) ?? (positions[index] as ClaimPosition)
      if (work.kind === 'claim') {
        position = { ...position, epoch: position.epoch + 1 }
        moved.set(index, position)
        written.set(work, position)
        continue
      }
      if (work.epoch !== position.epoch) {
        work.reject(new FencedError(index, work.epoch))
        continue
      }
      const changelog = partitions.status[index] as EmbeddedPartition
      bytes += stage(work.changelog, changelog, touched)
      bytes += stage(work.deadLetters, partitions['dead-letters'][index] as EmbeddedPartition, touched)
      position = { epoch: work.epoch, input: work.next, changelogEnd: changelog.stagedEnd }
      moved.set(index, position)
      written.set(work, position)
    }
    this.#queue = taken === this.#queue.length ? [] : this.#queue.slice(taken)
  }

  #stageAppend({ topic, records, bytes, placed }: Append, touched: EmbeddedPartition[]): void {
    const partitions = this.#options.partitions[topic]
    let partition: EmbeddedPartition | undefined
    for (const record of records) {
      partition = partitions[this.#partitionOf(record, partitions.length)] as EmbeddedPartition
      if (partition.stage(record)) touched.push(partition)
    }
    if (partition !== undefined) placed?.({ partition: partition.index, offset: partition.stagedEnd - 1 })
    this.#queuedBytes -= bytes
  }

  #partitionOf(record: NewRecord, partitions: number): number {
    if (record.key !== null) return partitionOf(record.key, partitions)
    return this.#nextKeyless++ % partitions
  }

  /**
   * Nobody knows how much of a failed write is on the disk, so all waiting work is rejected and the database is
   * reopened.
   */
  async #fail(thrown: unknown, written: Iterable<Append | Move>): Promise<void> {
    const { logger, metrics } = this.#options
    this.#doubt = undefined
    const noSpace = errorCode(thrown) === 'LEVEL_NO_SPACE'
    const out = wayOut(errorCode(thrown), reasonOf(thrown))
    this.fault = new RetryableError(
      noSpace ? 'LOG_NO_SPACE' : 'LOG_UNAVAILABLE',
      `the log in ${this.#storage.folder} cannot be written (${reasonOf(thrown)}): ${out}; it goes on by itself`,
      thrown,
    )
    this.#recovered = Promise.withResolvers()
    metrics.fault.set(1)
    logger.error(
      { err: thrown, folder: this.#storage.folder },
      'log cannot be written; appends are refused until it can',
    )
    const refused = [...written, ...this.#queue]
    this.#queue = []
    this.#queuedBytes = 0
    for (const work of refused) work.reject(this.fault)
    await this.#recover(noSpace)
    this.#recovered.resolve()
    this.#recovered = undefined
  }

  async #recover(noSpace: boolean): Promise<void> {
    const { minFreeBytes, logger, metrics, reopen } = this.#options
    const { signal } = this.#closing
    const backoff = new Backoff(MIN_RETRY_MS, MAX_RETRY_MS)
    for (;;) {
      await pause(backoff.next(), signal)
      if (signal.aborted) return
      try {
        // Closing the database takes it from its readers, so it is done only when it can help.
        if (noSpace && (await this.#storage.free()) < minFreeBytes) continue
        await reopen()
        await this.#storage.write([{ type: 'put', key: Buffer.from('probe'), value: Buffer.alloc(4096) }])
      } catch (error) {
        // The error tells what to do now, for instance when the folder has gone since.
        if (error instanceof RetryableError) this.fault = error
        logger.warn({ err: error, folder: this.#storage.folder }, 'log still cannot be written')
        continue
      }
      this.fault = undefined
      metrics.fault.set(0)
      logger.info({ folder: this.#storage.folder }, 'log can be written again')
      return
    }
  }
}

/** Returns the sum of their size bounds. */
function stage(records: readonly NewRecord[], partition: EmbeddedPartition, touched: EmbeddedPartition[]): number {
  let bytes = 0
  for (const record of records) {
    const bound = sizeBound(record)
    bytes += bound
    if (partition.stage(record, bound)) touched.push(partition)
  }
  return bytes
}

function tooLarge(record: NewRecord, size: number): ConfigurationError | undefined {
  const { key } = record
  if (size <= MAX_RECORD_BYTES && (key === null || key.length * 3 <= MAX_KEY_BYTES)) return undefined
  const keyBytes = key === null ? 0 : Buffer.byteLength(key)
  if (size <= MAX_RECORD_BYTES && keyBytes <= MAX_KEY_BYTES) return undefined
  const what = `a record of up to ${size} bytes with a key of ${keyBytes} is too large`
  const limit = `the log takes ${MAX_RECORD_BYTES} and ${MAX_KEY_BYTES}`
  return new ConfigurationError('RECORD_TOO_LARGE', `${what}: ${limit}; have its sender limit it`)
}
