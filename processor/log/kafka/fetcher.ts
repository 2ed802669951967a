import { setImmediate } from 'node:timers/promises'
import type { Logger } from 'pino'
import { LogCorruptedError, OffsetOutOfRangeError, RetryableError } from '../../contract/errors.ts'
import { pause, Reminder } from '../../runtime/pause.ts'
import { inMemory } from '../../runtime/resources.ts'
import type { Batch, BatchLimits, LogRecord, Offset } from '../log.ts'
import type { KafkaCluster } from './cluster.ts'
import type { BrokerConnection } from './protocol/broker.ts'
import { asTidemark, isNameless, isTransient, typeOf } from './protocol/errors.ts'
import { type Fetched, type FetchLimits, type FetchPosition, fetch } from './protocol/fetch.ts'
import { FetchedRecords } from './protocol/records.ts'

/** A partition with fewer unread bytes than this is fetched; so it holds at most this and one answer. */
const LOW_WATER_BYTES = 512 * 1024
/**
 * Unread bytes of all partitions, first fetches under way included. Above it only empty partitions are fetched, with
 * LITTLE_BYTES each. Less where memory is scarce.
 */
const MAX_UNREAD_BYTES = inMemory(64 * 1024 * 1024)
const MAX_WAIT_MS = 50
const MAX_BYTES = 8 * 1024 * 1024
const PARTITION_BYTES = 2 * 1024 * 1024
const LITTLE_BYTES = 64 * 1024
/** For partitions that are read to their ends: the request waits there. */
const WAITING_LANE = 'fetch'
/** For partitions known to have more. */
const BEHIND_LANE = 'fetch-behind'
/** For a partition's first request, which takes what is there. */
const LOOK_LANE = 'fetch-first'
export const FETCH_LANES: readonly string[] = [WAITING_LANE, BEHIND_LANE, LOOK_LANE]
const RETRY_MS = 50

/** One request for partitions of one leader, on one connection; a connection's answers come in order. */
interface Poll {
  readonly leader: number
  readonly lane: string
  readonly sources: Source[]
}

/**
 * Reads partitions without a group. To each leader there are three lanes, so that none waits for another: partitions
 * that are read to their ends share a request that waits; those that are behind share another; and a partition that
 * was just opened is fetched alone.
 */
export class KafkaFetcher {
  readonly #cluster: KafkaCluster
  readonly #logger: Logger
  /** The source that was given records last stands last. */
  readonly #sources = new Set<Source>()
  readonly #polling = new Set<string>()
  /** Epochs of the leaders that wrote the last fetched records, by topic and partition. */
  readonly #epochs = new Map<string, number>()
  readonly #troubles: FetchTroubles
  /** Bytes that the first requests under way may bring. */
  #looked = 0
  readonly #closing = new AbortController()

  constructor(cluster: KafkaCluster, logger: Logger) {
    this.#cluster = cluster
    this.#logger = logger
    this.#troubles = new FetchTroubles(logger)
  }

  async *follow(
    topic: string,
    index: number,
    from: Offset,
    limits: BatchLimits,
    signal: AbortSignal,
  ): AsyncGenerator<Batch> {
    if (signal.aborted) return
    const source = new Source(topic, index, from)
    const stop = AbortSignal.any([signal, this.#closing.signal])
    const wake = (): void => source.wake()
    stop.addEventListener('abort', wake)
    this.#sources.add(source)
    try {
      source.fetching = true
      void this.#look(source)
      for (;;) {
        const batch = source.take(limits)
        // A caller without records asks again at once, and more empty batches may follow: markers, and aborted
        // records.
        if (batch?.records.length === 0) await setImmediate()
        if (stop.aborted) return
        if (!source.fetching && source.unread < LOW_WATER_BYTES) this.#wake()
        if (batch !== undefined) yield batch
        else await source.changed()
        if (stop.aborted) return
      }
    } finally {
      this.#sources.delete(source)
      this.#troubles.end(source)
      stop.removeEventListener('abort', wake)
    }
  }

  /** Epoch of the leader that wrote the last fetched record of a partition; undefined when nothing was fetched. */
  epochOf(topic: string, index: number): number | undefined {
    return this.#epochs.get(`${topic} ${index}`)
  }

  close(): void {
    this.#closing.abort()
  }

  #wake(): void {
    this.#start().catch((error: unknown) => {
      for (const source of this.#sources) source.fail(asTidemark(error, `${source.topic} ${source.index}`))
    })
  }

  /** Starts a poll for each lane and leader that has partitions to read and no poll under way. */
  async #start(): Promise<void> {
    if (this.#closing.signal.aborted) return
    const { topics } = await this.#cluster.metadata()
    const polls = new Map<string, Poll>()
    const most = this.#full ? 1 : LOW_WATER_BYTES
    for (const source of this.#sources) {
      if (source.fetching || source.failed || source.unread >= most) continue
      const leader = topics.get(source.topic)?.leaders[source.index] ?? -1
      const lane = source.behind ? BEHIND_LANE : WAITING_LANE
      const name = `${lane} ${leader}`
      if (this.#polling.has(name)) continue
      const poll = polls.get(name)
      if (poll === undefined) polls.set(name, { leader, lane, sources: [source] })
      // A request names a partition once; a second follower of it takes the next request.
      else if (!poll.sources.some((other) => isSame(source, other))) poll.sources.push(source)
    }
    for (const [name, poll] of polls) {
      this.#polling.add(name)
      for (const source of poll.sources) source.fetching = true
      void this.#poll(name, poll)
    }
  }

  get #full(): boolean {
    let unread = this.#looked
    for (const source of this.#sources) unread += source.unread
    return unread > MAX_UNREAD_BYTES
  }

  #limits(maxWaitMs: number): FetchLimits {
    return { maxWaitMs, maxBytes: MAX_BYTES, maxPartitionBytes: this.#full ? LITTLE_BYTES : PARTITION_BYTES }
  }

  async #poll(name: string, { leader, lane, sources }: Poll): Promise<void> {
    await this.#fetch(sources, lane, this.#limits(MAX_WAIT_MS), leader)
    this.#polling.delete(name)
    this.#wake()
  }

  async #look(source: Source): Promise<void> {
    const limits = this.#limits(0)
    this.#looked += limits.maxPartitionBytes
    await this.#fetch([source], LOOK_LANE, limits)
    this.#looked -= limits.maxPartitionBytes
    this.#wake()
  }

  /** Never rejects: followers learn of permanent failures. Without `leader` the first source's is asked. */
  async #fetch(sources: readonly Source[], lane: string, limits: FetchLimits, leader?: number): Promise<void> {
    let transient = false
    let nodeId = leader ?? -1
    const asked = performance.now()
    try {
      const [first] = sources as readonly [Source]
      const { topics } = await this.#cluster.metadata()
      nodeId = leader ?? topics.get(first.topic)?.leaders[first.index] ?? -1
      const connection = await this.#cluster.connection(lane, nodeId)
      const answers = await fetch(connection, sources, limits, ({ topic, index }) => topics.get(topic)?.epochs[index])
      const lost = new Map<Source, string>()
      for (const answer of answers) {
        const source = sources.find((candidate) => isSame(candidate, answer))
        if (source === undefined) continue
        if (answer.error === undefined) this.#troubles.end(source)
        if (!this.#settle(source, answer, lost)) continue
        transient = true
        this.#note(source, nodeId, asked, answer.error)
      }
      if (lost.size > 0 && (await this.#judge(lost, nodeId, connection))) transient = true
    } catch (error) {
      if (mayPass(error)) {
        transient = true
        this.#logger.debug({ err: error }, 'a fetch failed')
        for (const source of sources) this.#note(source, nodeId, asked, error)
      } else {
        for (const source of sources) source.fail(asTidemark(error, `${source.topic} ${source.index}`))
      }
    }
    if (transient) {
      await pause(RETRY_MS, this.#closing.signal)
      if (!this.#closing.signal.aborted) {
        await this.#cluster.refresh().catch((error: unknown) => this.#logger.debug({ err: error }, 'no metadata'))
      }
    }
    for (const source of sources) source.fetching = false
  }

  /** Nobody waits for a source that has ended. */
  #note(source: Source, leader: number, asked: number, error: unknown): void {
    if (this.#sources.has(source)) this.#troubles.note(source, leader, asked, error)
  }

  /**
   * Returns true when the partition is to be fetched again elsewhere. `lost` gets the sources that cannot go on, and
   * why.
   */
  #settle(source: Source, answer: Fetched, lost: Map<Source, string>): boolean {
    const { error, lostFrom } = answer
    if (lostFrom !== undefined && lostFrom >= source.position) {
      // The leader does not know that epoch, but has what was read.
      source.epoch = undefined
      return false
    }
    if (lostFrom !== undefined) {
      lost.set(source, `was read to, but what stood at ${lostFrom} and after it is gone`)
      return false
    }
    if (error === undefined) {
      const epoch = source.give(answer)
      // A source that has ended has a successor, which may have read on.
      if (epoch !== undefined && this.#sources.delete(source)) {
        // A broker fills its answer in the order of the request (KIP-74): a partition that got records lets others go
        // first.
        this.#sources.add(source)
        this.#learn(source, epoch)
      }
      return false
    }
    if (mayPass(error)) {
      if (isNameless(error) && !source.troubled) {
        const { topic, index, position } = source
        this.#logger.warn({ err: error, topic, partition: index, offset: position }, 'a broker failed at a fetch')
        source.troubled = true
      }
      return true
    }
    const type = typeOf(error)
    const where = `${source.topic} ${source.index}: offset ${source.position}`
    if (type === 'OFFSET_OUT_OF_RANGE') {
      lost.set(source, 'is not in the log')
    } else if (type === 'CORRUPT_MESSAGE') {
      source.fail(new LogCorruptedError(`${where} cannot be read by its leader`, error))
    } else {
      source.fail(asTidemark(error, `${source.topic} ${source.index}`))
    }
    return false
  }

  /** Another follower of the same partition may have read on. */
  #learn({ topic, index }: Source, epoch: number): void {
    const name = `${topic} ${index}`
    this.#epochs.set(name, Math.max(epoch, this.#epochs.get(name) ?? epoch))
  }

  /**
   * In a topic created anew every old position is out of range, and a reader that hears so wipes a copy that may be
   * the last. The leader knows the new topic first, so it is asked. Returns true while that is undecided.
   */
  async #judge(lost: ReadonlyMap<Source, string>, leader: number, connection: BrokerConnection): Promise<boolean> {
    const topics = [...new Set([...lost.keys()].map(({ topic }) => topic))]
    const asked = topics.map((topic) => this.#cluster.doubt(topic, leader, connection))
    const doubts = new Map((await Promise.all(asked)).map((doubt, i) => [topics[i], doubt]))
    let undecided = false
    for (const [source, why] of lost) {
      const doubt = doubts.get(source.topic)
      const where = `${source.topic} ${source.index}: offset ${source.position}`
      if (doubt instanceof RetryableError) undecided = true
      else source.fail(doubt ?? new OffsetOutOfRangeError(`${where} ${why}; ${AGAIN}`))
    }
    return undecided
  }
}

const AGAIN = 'start again from what is kept'

/** A nameless error may be over with the next fetch; the Java consumer retries it too. */
function mayPass(error: unknown): boolean {
  return isTransient(error) || isNameless(error)
}

interface Named {
  readonly topic: string
  readonly index: number
}

function isSame(a: Named, b: Named): boolean {
  return a.topic === b.topic && a.index === b.index
}

/** One follower of one partition: unread answers, and where to fetch on. */
export class Source implements FetchPosition {
  readonly topic: string
  readonly index: number
  /** Where the next fetch begins. */
  position: Offset
  /** Epoch of the leader that wrote the record before `position`; undefined until something was fetched. */
  epoch: number | undefined
  fetching = false
  /** Its broker failed, and has given nothing since. */
  troubled = false
  unread = 0
  #answers: FetchedRecords[] = []
  /** The last stable offset as last told. */
  #end: Offset = Number.POSITIVE_INFINITY
  #given: Offset
  #failure: Error | undefined
  #waiting: (() => void) | undefined

  constructor(topic: string, index: number, from: Offset) {
    this.topic = topic
    this.index = index
    this.position = from
    this.#given = from
  }

  /** There are more records than were fetched. */
  get behind(): boolean {
    return this.position < this.#end
  }

  get failed(): boolean {
    return this.#failure !== undefined
  }

  /** Takes an answer. Returns the epoch of the leader that wrote its last record; undefined for an empty one. */
  give({ bytes, aborted, end }: Fetched): number | undefined {
    this.troubled = false
    // A new leader may know less than the former one.
    this.#end = end
    if (bytes.length === 0) return undefined
    try {
      const answer = new FetchedRecords(`${this.topic} ${this.index}`, bytes, aborted, this.position)
      const reached = answer.end
      // Less than one batch.
      if (reached === undefined) return undefined
      this.position = Math.max(this.position, reached.offset)
      this.epoch = reached.epoch
      this.#answers.push(answer)
    } catch (error) {
      this.fail(error as Error)
      return undefined
    }
    this.unread += bytes.length
    this.wake()
    return this.epoch
  }

  fail(error: Error): void {
    this.#failure ??= error
    this.wake()
  }

  wake(): void {
    this.#waiting?.()
    this.#waiting = undefined
  }

  changed(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#answers.length > 0 || this.#failure !== undefined) resolve()
      else this.#waiting = resolve
    })
  }

  /**
   * The unread records within `limits`; a batch without records when only the position moved; undefined for nothing.
   * It takes from several answers: one poll brings what arrived in milliseconds, and a reader that is behind needs
   * large steps.
   */
  take(limits: BatchLimits): Batch | undefined {
    const records: LogRecord[] = []
    let bytes = 0
    let next = this.#given
    for (;;) {
      const [answer] = this.#answers
      if (answer === undefined || records.length >= limits.maxRecords) break
      try {
        bytes = answer.read(limits, records, bytes)
      } catch (error) {
        // Records before the failure are given first, none after it.
        this.fail(error as Error)
        this.#answers = []
        next = answer.next
        break
      }
      next = answer.next
      if (!answer.done) break
      this.#answers.shift()
      this.unread -= answer.byteLength
    }
    if (next > this.#given) {
      this.#given = next
      return { records, next, end: Math.max(this.#end, next) }
    }
    if (this.#failure !== undefined) throw this.#failure
    return undefined
  }
}

/** Failing fetches mostly recover by themselves, or with another leader; ones that last this long, ms, are logged. */
const TELL_AFTER_MS = 10_000

/** Logs brokers whose fetches fail for long. */
export class FetchTroubles {
  readonly #logger: Logger
  /** When the first fetch was sent that failed, with no success since. */
  readonly #since = new Map<Source, number>()
  readonly #told = new Map<number, Reminder>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** Notes that a fetch from `leader`, sent at `asked`, failed for `source`. */
  note(source: Source, leader: number, asked: number, error: unknown): void {
    const since = this.#since.get(source)
    // A single failure does not last, however late its answer came.
    if (since === undefined) return void this.#since.set(source, asked)
    const lasted = performance.now() - since
    if (lasted < TELL_AFTER_MS || !this.#toldOf(leader).isDue('')) return
    const { topic, index: partition } = source
    const seconds = Math.round(lasted / 1000)
    this.#logger.warn(
      { err: error, broker: leader, topic, partition },
      `fetches from a broker fail for ${seconds} s now`,
    )
  }

  #toldOf(leader: number): Reminder {
    let told = this.#told.get(leader)
    if (told === undefined) this.#told.set(leader, (told = new Reminder()))
    return told
  }

  /** A fetch for `source` succeeded, or it has ended. */
  end(source: Source): void {
    this.#since.delete(source)
  }
}
