import type { Logger } from 'pino'
import { TidemarkError, UnavailableError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import type {
  Answer,
  Copy,
  Freshness,
  Listing,
  Owner,
  OwnerMap,
  PartitionInfo,
  PartitionReader,
  PastAnswer,
  StatusReader,
} from '../../processor/contract/query.ts'
import type { Position } from '../../processor/contract/record.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from '../../processor/contract/search.ts'
import { pause } from '../../processor/runtime/pause.ts'
import { inTime, LateError } from './exchange.ts'
import { ANSWER_WITHIN_MS, type Fresh, isFurther, MonotonicReads, ofStandby } from './monotonic-reads.ts'
import { copiesOf, Owners, partitionsOf } from './owners.ts'
import { group, type Share, shareOut } from './remote.ts'

/** Pause between two looks at who could be asked, ms. */
const LOOK_MS = 200

interface Found<T> {
  readonly answer: T
  readonly by: Owner
}

interface FirstOfAll<T> {
  readonly partition: number
  readonly owners: Owners
  /** Asks a copy, and waits until the time is over. */
  readonly ask: (copy: Owner) => Promise<T>
  /** Collects the failures of copies that cannot answer. */
  readonly failures: TidemarkError[]
}

/**
 * Asks all copies at once and returns the first answer. It takes new maps meanwhile, since another copy soon owns the
 * partition of an owner that stands still. Undefined: nobody is left who may answer.
 */
async function firstOfAll<T>({ partition, owners, ask, failures }: FirstOfAll<T>): Promise<Found<T> | undefined> {
  const { promise: first, resolve, reject } = Promise.withResolvers<Found<T>>()
  const underWay = new Set<string>()
  const put = async (by: Owner): Promise<void> => {
    underWay.add(by.endpoint)
    try {
      resolve({ answer: await ask(by), by })
    } catch (error) {
      if (!(error instanceof TidemarkError)) return reject(error)
      failures.push(error)
    }
    underWay.delete(by.endpoint)
  }
  for (;;) {
    const { active, standbys = [] } = (await owners.current()).get(partition) ?? {}
    for (const copy of active === undefined ? standbys : [active, ...standbys]) {
      if (!underWay.has(copy.endpoint)) void put(copy)
    }
    const found = await Promise.race([first, pause(LOOK_MS)])
    if (found !== undefined) return found
    if (underWay.size === 0) return undefined
    owners.hint()
  }
}

/** Share of an answer's time for which an owner may hold a question. The rest is for the way. */
export const HOLD_SHARE = 0.6
/** First and longest pause before a copy that lags or is silent is asked again, ms. */
const MIN_PAUSE_MS = 50
const MAX_PAUSE_MS = 400

interface Question {
  readonly deviceIds: readonly string[]
  /** Takes each answer as it comes, so that nobody waits for another device's owner. */
  readonly settle: Settle
}

/** Answers of one partition. The freshness of the first stands for all when copies are compared. */
interface Answers extends Fresh {
  readonly answers: readonly Answer[]
}

function together(answers: readonly Answer[]): Answers {
  return { answers, freshness: (answers[0] as Answer).freshness }
}

interface Said<T> {
  readonly by: Owner
  readonly answer: T | TidemarkError
}

/**
 * Reads every device of the fleet from the processes that hold the partitions: from the owner, or from a standby while
 * the owner cannot answer. It keeps only the owner map and how far standbys' answers went, so any number of API
 * processes can run beside each other.
 */
export class RoutedReader implements StatusReader {
  readonly #options: RoutedReaderOptions
  readonly #owners: Owners
  readonly #monotonic: MonotonicReads
  readonly #single = new Gather((deviceIds, settle) => this.#answer({ deviceIds, settle }))
  readonly #answerWithinMs: number
  readonly #searchWithinMs: number
  readonly #patienceMs: number
  readonly #attempts: number

  constructor(options: RoutedReaderOptions) {
    this.#options = options
    this.#answerWithinMs = options.answerWithinMs ?? ANSWER_WITHIN_MS
    this.#searchWithinMs = this.#answerWithinMs + (options.searchQueuedMs ?? 0)
    this.#patienceMs = options.patienceMs ?? 5_000
    this.#attempts = options.attempts ?? 1
    this.#monotonic = new MonotonicReads(options.partitions, options.now)
    this.#owners = new Owners({
      load: options.owners,
      now: options.now,
      logger: options.logger,
      minAgeMs: options.ownersMinAgeMs ?? 100,
      maxAgeMs: options.ownersMaxAgeMs ?? 5_000,
    })
  }

  get(deviceId: string): Promise<Answer> {
    return this.#single.get(deviceId)
  }

  async getMany(deviceIds: readonly string[]): Promise<(Answer | Error)[]> {
    const answers: (Answer | Error)[] = Array.from({ length: deviceIds.length })
    await this.#answer({
      deviceIds,
      settle: (place, answer) => {
        answers[place] = answer
      },
    })
    return answers
  }

  async #answer(question: Question): Promise<void> {
    const { deviceIds, settle } = question
    let map: OwnerMap
    try {
      map = await this.#owners.current()
    } catch (error) {
      // Nobody is known who could be asked.
      if (!(error instanceof UnavailableError)) throw error
      for (let place = 0; place < deviceIds.length; place++) settle(place, error)
      return
    }
    const { shares, unowned } = shareOut(deviceIds, map, this.#options.partitions)
    await Promise.all([
      ...shares.map((share) => this.#askOwner(share, question)),
      ...Array.from(unowned, ([partition, places]) => this.#askCopies(partition, places, question)),
    ])
  }

  /**
   * Asks an owner once for everything it owns. Questions that it cannot answer, or not as the owner, are asked by
   * partition.
   */
  async #askOwner({ owner, deviceIds, partitions, places }: Share, question: Question): Promise<void> {
    let given: readonly (Answer | TidemarkError)[] | TidemarkError
    try {
      given = await this.#askMember(owner, (reader) => reader.getEach(deviceIds, partitions))
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error
      given = error
    }
    const said = (k: number) => (given instanceof TidemarkError ? given : (given[k] as Answer | TidemarkError))
    const open = new Map<number, number[]>()
    for (let k = 0; k < places.length; k++) {
      const answer = said(k)
      if (answer instanceof TidemarkError || !this.#stands(answer.freshness)) {
        group(open, partitions[k] as number, k)
      } else question.settle(places[k] as number, answer)
    }
    if (open.size === 0) return
    await Promise.all(
      Array.from(open, ([partition, ks]) => {
        const answers = ks.map(said)
        const failure = answers.find((answer) => answer instanceof TidemarkError)
        const at = ks.map((k) => places[k] as number)
        return this.#askCopies(partition, at, question, { by: owner, answer: failure ?? together(answers as Answer[]) })
      }),
    )
  }

  async #askCopies(
    partition: number,
    places: readonly number[],
    { deviceIds, settle }: Question,
    said?: Said<Answers>,
  ): Promise<void> {
    const ids = places.map((place) => deviceIds[place] as string)
    try {
      const ask = async (reader: PartitionReader) => together(await reader.getMany(partition, ids))
      const { answers, freshness } = await this.#ask(partition, ask, said)
      const { servedBy } = freshness
      for (let k = 0; k < places.length; k++) {
        const answer = answers[k] as Answer
        settle(places[k] as number, { ...answer, freshness: { ...answer.freshness, servedBy } })
      }
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error
      for (const place of places) settle(place, error)
    }
  }

  listPartition(partition: number, after: string | undefined, limit: number): Promise<Listing> {
    return this.#ask(partition, (reader) => reader.list(partition, after, limit))
  }

  search(question: SearchQuestion): Promise<SearchSlice> {
    const ask = (reader: PartitionReader) => reader.search(question)
    return this.#ask(question.partition, ask, undefined, this.#searchWithinMs)
  }

  summarize(question: SummaryQuestion): Promise<SummarySlice> {
    const ask = (reader: PartitionReader) => reader.summarize(question)
    return this.#ask(question.partition, ask, undefined, this.#searchWithinMs)
  }

  get partitionCount(): number {
    return this.#options.partitions
  }

  async partitions(): Promise<PartitionInfo[]> {
    const map = await this.#owners.renew()
    const copies = await copiesOf(map, this.#copiesAt)
    return partitionsOf(map, this.#options.partitions, copies.all)
  }

  /**
   * Whether a read of any partition could be answered by the current map. The group is not needed for that, and may be
   * away. A late processor may answer yet.
   */
  async mayAnswer(): Promise<boolean> {
    const copies = await copiesOf(await this.#owners.current(), this.#copiesAt)
    if (copies.late || copies.all.some(({ readable }) => readable)) return true
    this.#owners.hint()
    return false
  }

  partitionOf(deviceId: string): number {
    return partitionOf(deviceId, this.#options.partitions)
  }

  /** The owner holds the question until its copy is there. A standby that is there already may answer instead. */
  async getPast(position: Position, deviceId: string, withinMs: number): Promise<PastAnswer> {
    const { now } = this.#options
    const deadline = now() + withinMs
    let map = await this.#owners.current()
    for (let pauseMs = MIN_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, MAX_PAUSE_MS)) {
      const { active, standbys = [] } = map.get(position.partition) ?? {}
      const holdMs = Math.min(Math.max(0, deadline - now()), this.#answerWithinMs * HOLD_SHARE)
      const failures: TidemarkError[] = []
      const ask = (copy: Owner) => {
        const within = copy === active ? holdMs : 0
        return this.#askMember(copy, (reader) => reader.getPast(position, deviceId, within))
      }
      for (const copy of [active, ...standbys]) {
        if (copy === undefined) continue
        try {
          const given = await ask(copy)
          if (copy === active && this.#stands(given.freshness)) return given
          const answer = await this.#besides(given, (copy === active ? standbys : []).map(ask))
          // The outcome of a write holds for a copy that is behind, too.
          return { ...answer, outcome: answer.outcome ?? given.outcome }
        } catch (error) {
          if (!(error instanceof TidemarkError)) throw error
          failures.push(error)
        }
      }
      const [first] = failures
      if (now() + pauseMs >= deadline) throw first ?? this.#unavailable(position.partition, failures)
      await pause(pauseMs)
      if (first?.code !== 'POSITION_NOT_REACHED') map = await this.#owners.renew()
    }
  }

  readonly #copiesAt = (member: Owner): Promise<Copy[]> => this.#askMember(member, (reader) => reader.copies())

  /**
   * Asks the owner, unless `said` is its answer; then the owner by a new map, then the standbys. When none can answer
   * but some are late, it waits for those. While the map is too young to be reloaded standbys come first: a slightly
   * older answer beats a late one. A copy that is not the owner by the map answers as a standby, since it may have been
   * replaced without knowing.
   */
  async #ask<T extends Fresh>(
    partition: number,
    question: (reader: PartitionReader) => Promise<T>,
    said?: Said<T>,
    withinMs = this.#answerWithinMs,
  ): Promise<T> {
    const failures: TidemarkError[] = []
    const attempt = async (copies: readonly (Owner | undefined)[]): Promise<Found<T> | undefined> => {
      for (const copy of copies) {
        if (copy === undefined) continue
        try {
          return { answer: await this.#askMember(copy, question, withinMs), by: copy }
        } catch (error) {
          if (!(error instanceof TidemarkError)) throw error
          failures.push(error)
        }
      }
      return undefined
    }
    let known = (await this.#owners.current()).get(partition)
    let found: Found<T> | undefined
    if (said === undefined) found = await attempt([known?.active])
    else if (said.answer instanceof TidemarkError) failures.push(said.answer)
    else found = { answer: said.answer, by: said.by }
    const isLate = (): boolean => failures.some((failure) => failure instanceof LateError)
    const last = async (): Promise<Found<T> | undefined> => {
      const ask = (copy: Owner) => this.#askMember(copy, question, this.#patienceMs, true)
      const answered = await firstOfAll({ partition, owners: this.#owners, ask, failures })
      known = (await this.#owners.current()).get(partition)
      return answered
    }
    if (found === undefined && (isLate() || !this.#owners.renewable)) found = await attempt(known?.standbys ?? [])
    // Late copies are asked patiently at once: a new map may be late, too.
    const wasLate = isLate()
    if (found === undefined && wasLate) found = await last()
    const { now } = this.#options
    const began = now()
    for (let i = 0; found === undefined && i < this.#attempts && !(failures.at(-1) instanceof LateError); i++) {
      // While the group does not answer, each map takes its time and is the old one.
      if (i > 0 && now() - began > this.#answerWithinMs) break
      known = (await this.#owners.renew()).get(partition)
      found = await attempt([known?.active, ...(known?.standbys ?? [])])
    }
    if (found === undefined && !wasLate && isLate()) found = await last()
    if (found === undefined) throw this.#unavailable(partition, failures)
    const byOwner = found.by.endpoint === known?.active?.endpoint
    if (byOwner && this.#stands(found.answer.freshness)) return found.answer
    const others = byOwner ? (known?.standbys ?? []) : []
    const ask = (copy: Owner) => this.#askMember(copy, question, withinMs)
    return this.#besides(found.answer, others.map(ask))
  }

  /** Resolves with `first`, or with a further answer among the others. No lesser one is given afterwards. */
  async #besides<T extends Fresh>(first: T, others: readonly Promise<T>[]): Promise<T> {
    // The map may name an owner that is a standby by now. The answer is good, the map is not.
    this.#owners.hint()
    const answer = await this.#furthest(ofStandby(first), others)
    this.#monotonic.note(answer.freshness)
    return answer
  }

  /** Whether an owner's answer is the last word. */
  #stands(freshness: Freshness): boolean {
    return freshness.servedBy === 'owner' && !this.#monotonic.exceeds(freshness)
  }

  /** An owner that restores, or is doubtful, may be far behind a standby or behind its predecessor. */
  async #furthest<T extends Fresh>(first: T, others: readonly Promise<T>[]): Promise<T> {
    const answers = await Promise.allSettled(others)
    let best = first
    for (const answer of answers) {
      if (answer.status === 'fulfilled') {
        if (isFurther(answer.value.freshness, best.freshness)) best = ofStandby(answer.value)
      } else if (!(answer.reason instanceof TidemarkError)) throw answer.reason
    }
    return best
  }

  async #askMember<T>(
    member: Owner,
    question: (reader: PartitionReader) => Promise<T>,
    withinMs = this.#answerWithinMs,
    patient = false,
  ): Promise<T> {
    const reader = this.#options.connect(member, patient)
    if (reader === undefined) {
      throw new UnavailableError('PARTITION_UNAVAILABLE', `${member.instance} cannot be reached`)
    }
    return inTime(question(reader), withinMs, () => `${member.instance} did not answer within ${withinMs} ms`)
  }

  #unavailable(partition: number, failures: readonly TidemarkError[]): UnavailableError {
    const told = failures.map((error) => (error instanceof UnavailableError ? error.retryAfterSeconds : 0))
    const retryAfter = Math.max(1, ...told)
    const reason = failures.at(-1)?.message ?? 'it has neither an owner nor a standby'
    const message = `no copy of partition ${partition} can answer now: ${reason}`
    return new UnavailableError('PARTITION_UNAVAILABLE', message, retryAfter, failures.at(-1))
  }
}

/** Most ids in one gathered question. A larger question travels alone. */
const MAX_GATHERED = 2_048

interface Waiting {
  readonly deviceIds: string[]
  readonly settle: { resolve(answer: Answer): void; reject(error: unknown): void }[]
}

/** Takes the answer to the id at `place` of a question. */
type Settle = (place: number, answer: Answer | Error) => void

type Ask = (deviceIds: readonly string[], settle: Settle) => Promise<void>

/**
 * Gathers the reads of single devices that arrive in one turn of the event loop into one question. A store answers a
 * batch many times faster than single reads, and another process is asked once.
 */
class Gather {
  readonly #ask: Ask
  #waiting: Waiting | undefined

  constructor(ask: Ask) {
    this.#ask = ask
  }

  get(deviceId: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#waiting === undefined) {
        this.#waiting = { deviceIds: [], settle: [] }
        setImmediate(this.#flush)
      }
      const { deviceIds, settle } = this.#waiting
      deviceIds.push(deviceId)
      settle.push({ resolve, reject })
      if (deviceIds.length >= MAX_GATHERED) this.#flush()
    })
  }

  readonly #flush = (): void => {
    const waiting = this.#waiting
    this.#waiting = undefined
    if (waiting !== undefined) void this.#send(waiting)
  }

  /** Never rejects: failures go to those who wait. */
  async #send({ deviceIds, settle }: Waiting): Promise<void> {
    try {
      await this.#ask(deviceIds, (place, answer) => {
        if (answer instanceof Error) settle[place]?.reject(answer)
        else settle[place]?.resolve(answer)
      })
    } catch (error) {
      // Callers that already have their answer ignore this.
      for (const waiter of settle) waiter.reject(error)
    }
  }
}

export interface RoutedReaderOptions {
  readonly partitions: number
  readonly owners: () => Promise<OwnerMap>
  /**
   * Returns the reader of one member; undefined when it cannot be reached. It is called per question and must be cheap.
   * A `patient` reader asks even a silent member, and waits longer than `answerWithinMs`.
   */
  readonly connect: (owner: Owner, patient: boolean) => PartitionReader | undefined
  readonly logger: Logger
  /** A monotonic clock, ms. */
  readonly now: () => number
  /** Least time between two loads of the owner map, ms. Default 100. */
  readonly ownersMinAgeMs?: number
  /** The owner map is reloaded when older than this, ms. Default 5,000. */
  readonly ownersMaxAgeMs?: number
  /** The next copy is asked when one has not answered after this, ms. Default ANSWER_WITHIN_MS. */
  readonly answerWithinMs?: number
  /** How much longer a search may take, ms, because it waits in this process first. Default 0. */
  readonly searchQueuedMs?: number
  /** How long a read waits for late copies, ms, when no other can answer. Default 5,000. */
  readonly patienceMs?: number
  /**
   * How often all copies are asked by a new owner map while none can answer: a partition that moves soon has one again.
   * The tries are at least `ownersMinAgeMs` apart. Default 1.
   */
  readonly attempts?: number
}
