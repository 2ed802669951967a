import { setImmediate } from 'node:timers/promises'
import type { Logger } from 'pino'
import { LogCorruptedError, OffsetOutOfRangeError, RetryableError } from '../../contract/errors.ts'
import { inMemory } from '../../runtime/memory.ts'
import { pause, Reminder } from '../../runtime/pause.ts'
import type { Batch, BatchLimits, LogRecord, Offset } from '../log.ts'
import type { KafkaCluster } from './cluster.ts'
import type { BrokerConnection } from './protocol/broker.ts'
import { asTidemark, isNameless, isTransient, typeOf } from './protocol/errors.ts'
import { type Fetched, type FetchLimits, type FetchPosition, fetch } from './protocol/fetch.ts'
import { FetchedRecords } from './protocol/records.ts'

/** A partition with less than this unread is asked for more; so it holds at most this and one answer. */
const LOW_WATER_BYTES = 512 * 1024
/**
 * What all partitions may hold unread, or may be given by their first requests; above it only those with nothing are asked
 * for more, and for little each. Less where memory is scarce.
 */
const MAX_UNREAD_BYTES = inMemory(64 * 1024 * 1024)
const MAX_WAIT_MS = 50
const MAX_BYTES = 8 * 1024 * 1024
const PARTITION_BYTES = 2 * 1024 * 1024
const LITTLE_BYTES = 64 * 1024
/** For partitions that are read to their ends: a request waits for what comes in. */
const WAITING_LANE = 'fetch'
/** For those that are known to have more. */
const BEHIND_LANE = 'fetch-behind'
/** For the first request for a partition, which takes what is there. */
const LOOK_LANE = 'fetch-first'
export const FETCH_LANES: readonly string[] = [WAITING_LANE, BEHIND_LANE, LOOK_LANE]
const RETRY_MS = 50

/** One request for partitions of one leader, on one of its connections: those answer in order. */
interface Poll {
  readonly leader: number
  readonly lane: string
  readonly sources: Source[]
}

/**
 * Reads partitions without a group. All partitions of one leader that are read to their ends share one request, which
 * waits there; those that are behind share another, and one that has just been opened is fetched once by itself: each of
 * the three has a lane of its own, so that none waits for what others may get.
 */
export class KafkaFetcher {
  readonly #cluster: KafkaCluster
  readonly #logger: Logger
  /** Those that were given something last come last. */
  readonly #sources = new Set<Source>()
  /** Names of the polls under way. */
  readonly #polling = new Set<string>()
  /** Of the leaders that wrote what was fetched last, by topic and partition. */
  readonly #epochs = new Map<string, number>()
  readonly #troubles: FetchTroubles
  /** Bytes that the first requests under way may bring: each partition has one of its own. */
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
        // Who is given nothing to do asks for more at once, and more of it may be there: markers, and what was aborted.
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

  /** Of the leader that wrote what was fetched last of a partition; undefined when nothing was. */
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

  /** Starts a poll on each lane to a leader for which there are partitions to read, and no poll under way. */
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
      // A request names a partition once; a second follower of it takes the next one.
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

  /** Never rejects: what goes wrong for good is told to the followers. `leader`: undefined for the first source's. */
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

  /** Of one that ended before its answer came nobody waits for more. */
  #note(source: Source, leader: number, asked: number, error: unknown): void {
    if (this.#sources.has(source)) this.#troubles.note(source, leader, asked, error)
  }

  /** Returns true when the partition is to be asked again elsewhere; `lost` gets those that cannot go on, and why. */
  #settle(source: Source, answer: Fetched, lost: Map<Source, string>): boolean {
    const { error, lostFrom } = answer
    if (lostFrom !== undefined && lostFrom >= source.position) {
      // The leader does not know that epoch, and has what was read.
      source.epoch = undefined
      return false
    }
    if (lostFrom !== undefined) {
      lost.set(source, `was read to, but what stood at ${lostFrom} and after it is gone`)
      return false
    }
    if (error === undefined) {
      const epoch = source.give(answer)
      // One that ended before its answer came has a successor, which may have read on.
      if (epoch !== undefined && this.#sources.delete(source)) {
        // A broker fills its answer in the order of the request (KIP-74): who got something lets the others go first.
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

  /** Of two that follow one partition, the other one may have read on. */
  #learn({ topic, index }: Source, epoch: number): void {
    const name = `${topic} ${index}`
    this.#epochs.set(name, Math.max(epoch, this.#epochs.get(name) ?? epoch))
  }

  /**
   * In a topic that was created anew every position of the former one is out of range, and whoever hears so wipes a copy
   * that may be the last. Nobody knows sooner than the leader. Returns true while it is not decided.
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

/** What has no name may be over with the next fetch, as the Java consumer has it too. */
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

/** One partition as one follower reads it: what has come and is not yet read, and where to fetch on. */
export class Source implements FetchPosition {
  readonly topic: string
  readonly index: number
  /** Where the next fetch begins. */
  position: Offset
  /** Of the leader that wrote what stands before `position`; undefined until something was fetched. */
  epoch: number | undefined
  fetching = false
  /** Its broker has failed at it, and has not given anything since. */
  troubled = false
  unread = 0
  #answers: FetchedRecords[] = []
  /** The last stable offset, as told last; before that there may be anything. */
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

  /** There is more than was fetched. */
  get behind(): boolean {
    return this.position < this.#end
  }

  get failed(): boolean {
    return this.#failure !== undefined
  }

  /** Gives the epoch of the leader that wrote the last of it; undefined when it was nothing. */
  give({ bytes, aborted, end }: Fetched): number | undefined {
    this.troubled = false
    // After a leader that knows of less than the one before it this is less.
    this.#end = end
    if (bytes.length === 0) return undefined
    try {
      const answer = new FetchedRecords(`${this.topic} ${this.index}`, bytes, aborted, this.position)
      const reached = answer.end
      // Bytes of less than one batch bring nothing on.
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
   * What is there, within `limits`; a batch without records where only the position moved; undefined for nothing. It is
   * gathered from all answers: a poll brings what came in milliseconds, and who is behind is to catch up in large steps.
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
        // What comes before it is given first; nothing after it is.
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

/** Fetches that fail pass mostly with the next one, or with another leader; those that have for so long, ms, are told of. */
const TELL_AFTER_MS = 10_000

/** Tells of brokers whose fetches fail for long. */
export class FetchTroubles {
  readonly #logger: Logger
  /** When the first fetch for it was sent that failed, with none since that did not. */
  readonly #since = new Map<Source, number>()
  /** By node id of the leader. */
  readonly #told = new Map<number, Reminder>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** A fetch from `leader`, sent at `asked` by performance.now(), has failed for `source`. */
  note(source: Source, leader: number, asked: number, error: unknown): void {
    const since = this.#since.get(source)
    // One failure is none that lasts, however late it came.
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

  /** A fetch for `source` has not failed, or nothing is fetched for it any more. */
  end(source: Source): void {
    this.#since.delete(source)
  }
}
