import { FencedError, OffsetOutOfRangeError, RetryableError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import type { OwnerMap } from '../../processor/contract/query.ts'
import type {
  Batch,
  BatchLimits,
  Claim,
  Log,
  LogIdentity,
  LogRecord,
  Member,
  NewRecord,
  Offset,
  Partition,
  Position,
  Topic,
} from '../../processor/log/log.ts'

interface Taken {
  epoch: number
  input: Offset
  changelogEnd: Offset
}

/** A log in memory, without a group, for tests of one role: claims are taken by hand, and commits can be made to fail. */
export class MemoryLog implements Log {
  readonly identity: LogIdentity
  readonly fault = undefined
  deleteRetentionMs = 24 * 3600_000
  readonly maxGatherMs = 0
  /** Called before each commit; what it throws is what the commit rejects with. */
  beforeCommit: () => void | Promise<void> = () => {}
  /** The next commit is made, and then its outcome is lost. */
  loseOutcome = false
  commits = 0
  /** A reader of the changelog that begins now is given what is before it, and then waits until it is aborted. */
  readableTo: Offset = Number.POSITIVE_INFINITY
  readonly #topics = new Map<string, LogRecord[]>()
  readonly #taken = new Map<number, Taken>()
  #grown: (() => void)[] = []

  constructor(partitions = 1) {
    this.identity = { cluster: 'memory', telemetry: 't', status: 's', partitions }
  }

  /** The next commits wait until they are let go; `reached` resolves when the first does. */
  holdCommits(): { readonly reached: Promise<void>; readonly letGo: () => void } {
    const reached = Promise.withResolvers<void>()
    const held = Promise.withResolvers<void>()
    this.beforeCommit = () => {
      reached.resolve()
      return held.promise
    }
    return { reached: reached.promise, letGo: held.resolve }
  }

  records(topic: Topic, index = 0): LogRecord[] {
    const name = `${topic}/${index}`
    const records = this.#topics.get(name) ?? []
    this.#topics.set(name, records)
    return records
  }

  /** Drops all but the newest record of each key, as compaction does; offsets stay. */
  compact(): void {
    const records = this.records('status')
    const newest = new Map(records.map((record) => [record.key, record]))
    const end = records.at(-1)
    records.splice(
      0,
      records.length,
      ...records.filter((record) => newest.get(record.key) === record || record === end),
    )
  }

  faultAt(): undefined {
    return this.fault
  }

  async append(topic: 'telemetry' | 'dead-letters', records: readonly NewRecord[]): Promise<void> {
    for (const record of records) {
      this.#push(topic, record.key === null ? 0 : partitionOf(record.key, this.identity.partitions), record)
    }
    this.#wake()
  }

  async write(record: NewRecord): Promise<Position> {
    await this.append('telemetry', [record])
    const partition = partitionOf(record.key as string, this.identity.partitions)
    return { partition, offset: this.#end(this.records('telemetry', partition)) - 1 }
  }

  async *follow(of: Partition, from: Offset, limits: BatchLimits, signal: AbortSignal): AsyncIterable<Batch> {
    const records = this.records(of.topic, of.index)
    const readableTo = of.topic === 'status' ? this.readableTo : Number.POSITIVE_INFINITY
    let position = from
    if (from > this.#end(records)) throw new OffsetOutOfRangeError(`${from} is past the end`)
    const wake = () => this.#wake()
    signal.addEventListener('abort', wake)
    try {
      while (!signal.aborted) {
        const batch: LogRecord[] = []
        let bytes = 0
        for (const record of records) {
          if (record.offset < position || record.offset >= readableTo || batch.length >= limits.maxRecords) continue
          bytes += record.value?.byteLength ?? 0
          if (batch.length > 0 && bytes > limits.maxBytes) break
          batch.push(record)
        }
        if (batch.length === 0) {
          await new Promise<void>((resolve) => this.#grown.push(resolve))
          continue
        }
        position = (batch.at(-1) as LogRecord).offset + 1
        yield { records: batch, next: position, end: this.#end(records) }
      }
    } finally {
      signal.removeEventListener('abort', wake)
    }
  }

  async bounds({ topic, index }: Partition): Promise<{ start: Offset; end: Offset }> {
    return { start: 0, end: this.#end(this.records(topic, index)) }
  }

  claim(partition = 0): Claim {
    const taken = this.#taken.get(partition) ?? { epoch: 0, input: 0, changelogEnd: 0 }
    this.#taken.set(partition, taken)
    const epoch = ++taken.epoch
    const start = { input: taken.input, changelogEnd: taken.changelogEnd }
    const commit: Claim['commit'] = async ({ changelog, deadLetters, next }) => {
      await this.beforeCommit()
      if (taken.epoch !== epoch) throw new FencedError(partition, epoch)
      for (const record of changelog) this.#push('status', partition, record)
      for (const record of deadLetters) this.#push('dead-letters', 0, record)
      taken.input = next
      taken.changelogEnd = this.#end(this.records('status', partition))
      this.commits++
      this.#wake()
      if (this.loseOutcome) throw new RetryableError('LOG_UNAVAILABLE', 'the outcome was lost')
      return { changelogEnd: taken.changelogEnd }
    }
    const inputEnd = this.#end(this.records('telemetry', partition))
    return { partition, epoch, start, inputEnd, held: true, commit }
  }

  join(_member: Member, _signal: AbortSignal): Promise<void> {
    throw new Error('no group here')
  }

  async owners(): Promise<OwnerMap> {
    return new Map()
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #push(topic: Topic, index: number, record: NewRecord): void {
    const records = this.records(topic, index)
    records.push({ ...record, offset: this.#end(records) })
  }

  #end(records: readonly LogRecord[]): Offset {
    return (records.at(-1)?.offset ?? -1) + 1
  }

  #wake(): void {
    const waiting = this.#grown
    this.#grown = []
    for (const resolve of waiting) resolve()
  }
}
