import { Agent } from 'node:http'
import { TidemarkError, UnavailableError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import {
  type Answer,
  type Copy,
  type Listing,
  type Owner,
  type OwnerMap,
  type PartitionReader,
  type PastAnswer,
} from '../../processor/contract/query.ts'
import {
  COPIES_PATH,
  decodeCopies,
  decodeListing,
  decodeOutcomes,
  decodePast,
  encodeListQuestion,
  encodePastQuestion,
  encodeQuestions,
  LIST_PATH,
  MAX_HOLD_MS,
  MAX_IDS_OF_QUESTION,
  MAX_IDS_OF_REQUEST,
  MAX_LISTED,
  MAX_QUESTIONS,
  PAST_PATH,
  type Question,
  READ_PATH,
} from '../../processor/contract/query-wire.ts'
import type { Position } from '../../processor/contract/record.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from '../../processor/contract/search.ts'
import {
  decodeSearchSlice,
  decodeSummarySlice,
  encodeSearchQuestion,
  encodeSummaryQuestion,
  SEARCH_PATH,
  SUMMARY_PATH,
} from '../../processor/search/wire.ts'
import { keepRecent } from '../http/answer-text.ts'
import { Exchange, type ExchangeOptions, type LateError } from './exchange.ts'

/** The part of a question that one owner is asked; `places` index its devices in the question. */
export interface Share {
  readonly owner: Owner
  readonly deviceIds: string[]
  readonly partitions: number[]
  readonly places: number[]
}

/** Assigns each device of a question to an owner. `unowned`: places of devices without an owner, by partition. */
export function shareOut(
  deviceIds: readonly string[],
  map: OwnerMap,
  partitions: number,
): { shares: Share[]; unowned: Map<number, number[]> } {
  const shares: Share[] = []
  const unowned = new Map<number, number[]>()
  let share: Share | undefined
  for (let i = 0; i < deviceIds.length; i++) {
    const deviceId = deviceIds[i] as string
    const partition = partitionOf(deviceId, partitions)
    const owner = map.get(partition)?.active
    if (owner === undefined) {
      group(unowned, partition, i)
      continue
    }
    // In a single process the endpoint is always the same.
    if (share?.owner.endpoint !== owner.endpoint) {
      share = shares.find((known) => known.owner.endpoint === owner.endpoint)
      if (share === undefined) shares.push((share = { owner, deviceIds: [], partitions: [], places: [] }))
    }
    share.deviceIds.push(deviceId)
    share.partitions.push(partition)
    share.places.push(i)
  }
  return { shares, unowned }
}

export function group(places: Map<number, number[]>, partition: number, place: number): void {
  const known = places.get(partition)
  if (known === undefined) places.set(partition, [place])
  else known.push(place)
}

/**
 * Connections to one processor for reads; further requests wait. They carry 8 reads (see MAX_UNDER_WAY) and 8 lists
 * (see `maxSnapshots`) beside the questions about copies.
 */
const MAX_READING_SOCKETS = 16
/** Connections to one processor for questions that it holds; further ones wait. */
const MAX_HOLDING_SOCKETS = 64
/**
 * Connections to one processor for slices of searches, which take up to 400 ms each; further ones wait. With 64
 * searches (see `maxSearches`) of 8 partitions each slice has its turn within MAX_QUEUED_MS. A processor spends about 6
 * ms of its event loop to begin a search: with more at a time the last would be late (800 ms) on a busy machine.
 */
const MAX_SEARCHING_SOCKETS = 48
/** Idle connections close after this long, ms, before a processor closes them. */
export const IDLE_MS = 30_000
/**
 * Requests for devices under way to one processor, and as many patient ones. Questions that come meanwhile travel
 * together in the next request.
 */
const MAX_UNDER_WAY = 4
/** Ids that wait for one processor. Further questions fail as unavailable. */
const MAX_WAITING_IDS = 16_384
/** Processors remembered. The one unused the longest is forgotten. */
const MAX_READERS = 1_024

/**
 * Separate connections, queue and silence for each kind of question to one processor, so that no read waits behind slow
 * work.
 */
interface Exchanges {
  readonly reading: Exchange
  readonly holding: Exchange
  readonly searching: Exchange
}

interface Readers {
  readonly usual: RemoteReader
  readonly patient: RemoteReader
}

/** Readers of processors in other processes, over connections that are kept. */
export class RemoteReaders implements Disposable {
  readonly #reading = agent(MAX_READING_SOCKETS)
  readonly #holding = agent(MAX_HOLDING_SOCKETS)
  readonly #searching = agent(MAX_SEARCHING_SOCKETS)
  /** By endpoint, in the order of last use. */
  readonly #readers = new Map<string, Readers>()
  readonly #options: ExchangeOptions

  constructor(options: ExchangeOptions) {
    this.#options = options
  }

  /** `patient`: asks even a silent processor, and waits for late answers. */
  connect({ endpoint }: Owner, patient = false): PartitionReader {
    const readers = this.#readers.get(endpoint) ?? this.#meet(endpoint)
    keepRecent(this.#readers, endpoint, readers, MAX_READERS)
    return patient ? readers.patient : readers.usual
  }

  #meet(endpoint: string): Readers {
    const exchanges = {
      reading: new Exchange(endpoint, this.#reading, this.#options),
      holding: new Exchange(endpoint, this.#holding, this.#options),
      searching: new Exchange(endpoint, this.#searching, this.#options),
    }
    return { usual: new RemoteReader(exchanges, false), patient: new RemoteReader(exchanges, true) }
  }

  /** Ends all connections. Questions under way fail. */
  [Symbol.dispose](): void {
    this.#reading.destroy()
    this.#holding.destroy()
    this.#searching.destroy()
  }
}

function agent(maxSockets: number): Agent {
  return new Agent({ keepAlive: true, maxSockets, timeout: IDLE_MS })
}

interface Waiting extends Question {
  resolve(answers: Answer[]): void
  reject(error: unknown): void
}

/** Asks one processor. Any failure on the way is an UnavailableError: ask another copy. */
class RemoteReader implements PartitionReader {
  readonly #exchanges: Exchanges
  readonly #patient: boolean
  #waiting: Waiting[] = []
  #waitingIds = 0
  #underWay = 0
  #scheduled = false

  constructor(exchanges: Exchanges, patient: boolean) {
    this.#exchanges = exchanges
    this.#patient = patient
  }

  async getMany(partition: number, deviceIds: readonly string[]): Promise<Answer[]> {
    if (deviceIds.length <= MAX_IDS_OF_QUESTION) return deviceIds.length === 0 ? [] : this.#ask(partition, deviceIds)
    const parts: Promise<Answer[]>[] = []
    for (let from = 0; from < deviceIds.length; from += MAX_IDS_OF_QUESTION) {
      parts.push(this.#ask(partition, deviceIds.slice(from, from + MAX_IDS_OF_QUESTION)))
    }
    return (await Promise.all(parts)).flat()
  }

  async getEach(deviceIds: readonly string[], partitions: readonly number[]): Promise<(Answer | TidemarkError)[]> {
    const answers: (Answer | TidemarkError)[] = Array.from({ length: deviceIds.length })
    const ask = async (partition: number, places: readonly number[]): Promise<void> => {
      try {
        const ids = places.map((i) => deviceIds[i] as string)
        const given = await this.getMany(partition, ids)
        for (let k = 0; k < places.length; k++) answers[places[k] as number] = given[k] as Answer
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error
        for (const i of places) answers[i] = error
      }
    }
    const places = new Map<number, number[]>()
    for (let i = 0; i < partitions.length; i++) group(places, partitions[i] as number, i)
    await Promise.all(Array.from(places, ([partition, at]) => ask(partition, at)))
    return answers
  }

  async list(partition: number, after: string | undefined, limit: number): Promise<Listing> {
    const question = encodeListQuestion({ partition, after, limit: Math.min(limit, MAX_LISTED) })
    return this.#post(this.#exchanges.reading, LIST_PATH, question, decodeListing)
  }

  /** The processor holds the question for `withinMs`, which must be shorter than an answer may take. */
  async getPast(position: Position, deviceId: string, withinMs: number): Promise<PastAnswer> {
    const question = encodePastQuestion({ position, deviceId, withinMs: Math.min(withinMs, MAX_HOLD_MS) })
    return this.#post(this.#exchanges.holding, PAST_PATH, question, decodePast)
  }

  async search(question: SearchQuestion): Promise<SearchSlice> {
    return this.#post(this.#exchanges.searching, SEARCH_PATH, encodeSearchQuestion(question), decodeSearchSlice)
  }

  async summarize(question: SummaryQuestion): Promise<SummarySlice> {
    return this.#post(this.#exchanges.searching, SUMMARY_PATH, encodeSummaryQuestion(question), decodeSummarySlice)
  }

  async #post<T>(exchange: Exchange, path: string, question: string, decode: (body: Buffer) => T): Promise<T> {
    const silence = this.#silence(exchange)
    if (silence !== undefined) throw silence
    return exchange.begin({ path, body: question, decode, patient: this.#patient }).answer
  }

  async copies(): Promise<Copy[]> {
    return this.#exchanges.reading.begin({ path: COPIES_PATH, decode: decodeCopies, patient: false }).answer
  }

  /** A processor that is silent on reads is silent on everything. */
  #silence(exchange: Exchange): LateError | undefined {
    return this.#patient ? undefined : (this.#exchanges.reading.silence ?? exchange.silence)
  }

  #ask(partition: number, deviceIds: readonly string[]): Promise<Answer[]> {
    const silence = this.#silence(this.#exchanges.reading)
    if (silence !== undefined) return Promise.reject(silence)
    if (this.#waitingIds + deviceIds.length > MAX_WAITING_IDS) {
      return Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'too many reads wait for this processor'))
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ partition, deviceIds, resolve, reject })
      this.#waitingIds += deviceIds.length
      this.#schedule()
    })
  }

  /** Waits a microtask, so that the questions of one read about all partitions travel in one request. */
  #schedule(): void {
    if (this.#scheduled || this.#underWay >= MAX_UNDER_WAY) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      while (this.#waiting.length > 0 && this.#underWay < MAX_UNDER_WAY) void this.#send(this.#next())
    })
  }

  #next(): Waiting[] {
    let count = 0
    let ids = 0
    for (const { deviceIds } of this.#waiting) {
      if (count === MAX_QUESTIONS || ids + deviceIds.length > MAX_IDS_OF_REQUEST) break
      count++
      ids += deviceIds.length
    }
    this.#waitingIds -= ids
    return this.#waiting.splice(0, count)
  }

  /** Never rejects: failures go to those who wait. */
  async #send(batch: readonly Waiting[]): Promise<void> {
    this.#underWay++
    const { answer, over } = this.#exchanges.reading.begin({
      path: READ_PATH,
      body: encodeQuestions(batch.map(({ partition, deviceIds }) => ({ partition, deviceIds }))),
      decode: (body) => decodeOutcomes(body, batch),
      patient: this.#patient,
    })
    try {
      const outcomes = await answer
      for (let i = 0; i < batch.length; i++) {
        const outcome = outcomes[i]
        if (Array.isArray(outcome)) batch[i]?.resolve(outcome)
        else batch[i]?.reject(outcome)
      }
    } catch (error) {
      for (const waiting of batch) waiting.reject(error)
    }
    // A late processor gets no further work.
    await over
    this.#underWay--
    if (this.#waiting.length > 0) this.#schedule()
  }
}
