import { Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import type { Logger } from 'pino'
import { TidemarkError, UnavailableError } from '../processor/contract/errors.ts'
import type { Position } from '../processor/contract/position.ts'
import {
  type Answer,
  type Copy,
  type Listing,
  type Owner,
  type PartitionReader,
  type PastAnswer,
  type SlicedAnswer,
  sliceOf,
} from '../processor/contract/query.ts'
import {
  COPIES_PATH,
  decodeCopies,
  decodeError,
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
} from '../processor/contract/query-wire.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from '../processor/contract/search.ts'
import {
  decodeSearchSlice,
  decodeSummarySlice,
  encodeSearchQuestion,
  encodeSummaryQuestion,
  SEARCH_PATH,
  SUMMARY_PATH,
} from '../processor/contract/search-wire.ts'
import { group } from './shares.ts'

/** Connections to one processor; further requests wait for one. */
const MAX_SOCKETS = 16
/** Connections to one processor for questions that it holds; further ones wait for one. */
const MAX_HOLDING_SOCKETS = 64
/** Idle connections are closed after so long, ms: sooner than a processor closes them. */
const IDLE_MS = 30_000
/** Requests for single devices under way to one processor: what is asked meanwhile travels together in the next one. */
const MAX_UNDER_WAY = 4
/** Ids that wait to be asked of one processor; further questions fail as unavailable. */
const MAX_WAITING_IDS = 16_384
/** Bytes of one answer; a longer one is none of a processor's. */
const MAX_ANSWER_BYTES = 128 * 1024 * 1024
/** Processors remembered; the one asked longest ago is forgotten. */
const MAX_READERS = 1_024
/** A processor that did not answer in time is not asked again for so long, ms: its standbys are, without the wait. */
const SILENCE_MS = 1_000

export interface RemoteReadersOptions {
  /** What the processors ask callers for; undefined when they do not. */
  readonly secret: string | undefined
  readonly logger: Logger
  /** An answer that takes longer, in ms, fails as unavailable. Default 800: sooner than RoutedReader turns away. */
  readonly answerWithinMs?: number
}

/** The processors of other processes, each behind connections that are kept. */
export class RemoteReaders implements Disposable {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: MAX_SOCKETS, timeout: IDLE_MS })
  readonly #holding = new Agent({ keepAlive: true, maxSockets: MAX_HOLDING_SOCKETS, timeout: IDLE_MS })
  readonly #readers = new Map<string, RemoteReader>()
  readonly #options: RemoteReadersOptions

  constructor(options: RemoteReadersOptions) {
    this.#options = options
  }

  connect({ endpoint }: Owner): PartitionReader {
    const present = this.#readers.get(endpoint)
    if (present !== undefined) return present
    const [oldest] = this.#readers.keys()
    if (oldest !== undefined && this.#readers.size >= MAX_READERS) this.#readers.delete(oldest)
    const reader = new RemoteReader(
      new Exchange(endpoint, this.#agent, this.#options),
      new Exchange(endpoint, this.#holding, this.#options),
    )
    this.#readers.set(endpoint, reader)
    return reader
  }

  /** Ends all connections; questions under way fail. */
  [Symbol.dispose](): void {
    this.#agent.destroy()
    this.#holding.destroy()
  }
}

interface Waiting extends Question {
  resolve(answers: Answer[]): void
  reject(error: unknown): void
}

/** What one processor can answer. Whatever goes wrong on the way is an UnavailableError: ask another copy. */
class RemoteReader implements PartitionReader {
  readonly #exchange: Exchange
  /** Apart, so that no read stands behind a question that waits. */
  readonly #holding: Exchange
  #waiting: Waiting[] = []
  #waitingIds = 0
  #underWay = 0
  #scheduled = false

  constructor(exchange: Exchange, holding: Exchange) {
    this.#exchange = exchange
    this.#holding = holding
  }

  async getMany(partition: number, deviceIds: readonly string[]): Promise<Answer[]> {
    if (deviceIds.length <= MAX_IDS_OF_QUESTION) return deviceIds.length === 0 ? [] : this.#ask(partition, deviceIds)
    const parts: Promise<Answer[]>[] = []
    for (let from = 0; from < deviceIds.length; from += MAX_IDS_OF_QUESTION) {
      parts.push(this.#ask(partition, deviceIds.slice(from, from + MAX_IDS_OF_QUESTION)))
    }
    return (await Promise.all(parts)).flat()
  }

  async getEach(
    deviceIds: readonly string[],
    partitions: readonly number[],
  ): Promise<(SlicedAnswer | TidemarkError)[]> {
    const answers: (SlicedAnswer | TidemarkError)[] = Array.from({ length: deviceIds.length })
    const ask = async (partition: number, places: readonly number[]): Promise<void> => {
      try {
        const ids = places.map((i) => deviceIds[i] as string)
        const given = await this.getMany(partition, ids)
        for (let k = 0; k < places.length; k++) {
          const { status, freshness } = given[k] as Answer
          answers[places[k] as number] = { status: status && sliceOf(status), freshness }
        }
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
    return this.#post(LIST_PATH, question, decodeListing)
  }

  /** Held there for `withinMs`, which must be shorter than an answer may take. */
  async getPast(position: Position, deviceId: string, withinMs: number): Promise<PastAnswer> {
    const question = encodePastQuestion({ position, deviceId, withinMs: Math.min(withinMs, MAX_HOLD_MS) })
    return this.#post(PAST_PATH, question, decodePast, this.#holding)
  }

  async search(question: SearchQuestion): Promise<SearchSlice> {
    return this.#post(SEARCH_PATH, encodeSearchQuestion(question), decodeSearchSlice)
  }

  async summarize(question: SummaryQuestion): Promise<SummarySlice> {
    return this.#post(SUMMARY_PATH, encodeSummaryQuestion(question), decodeSummarySlice)
  }

  async #post<T>(path: string, question: string, decode: (body: Buffer) => T, exchange = this.#exchange): Promise<T> {
    const { silence } = this.#exchange
    if (silence !== undefined) throw silence
    return exchange.ask('POST', path, question, decode)
  }

  async copies(): Promise<Copy[]> {
    return this.#exchange.ask('GET', COPIES_PATH, undefined, decodeCopies)
  }

  #ask(partition: number, deviceIds: readonly string[]): Promise<Answer[]> {
    const { silence } = this.#exchange
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

  /** After this turn of the event loop: the questions about all partitions of the processor come in one. */
  #schedule(): void {
    if (this.#scheduled || this.#underWay >= MAX_UNDER_WAY) return
    this.#scheduled = true
    setImmediate(() => {
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

  /** Never rejects: what goes wrong is told to those who wait. */
  async #send(batch: readonly Waiting[]): Promise<void> {
    this.#underWay++
    try {
      const questions = encodeQuestions(batch.map(({ partition, deviceIds }) => ({ partition, deviceIds })))
      const outcomes = await this.#exchange.ask('POST', READ_PATH, questions, (body) => decodeOutcomes(body, batch))
      for (let i = 0; i < batch.length; i++) {
        const outcome = outcomes[i]
        if (Array.isArray(outcome)) batch[i]?.resolve(outcome)
        else batch[i]?.reject(outcome)
      }
    } catch (error) {
      for (const waiting of batch) waiting.reject(error)
    }
    this.#underWay--
    if (this.#waiting.length > 0) this.#schedule()
  }
}

/** Requests to one endpoint. */
class Exchange {
  readonly #endpoint: string
  readonly #agent: Agent
  readonly #headers: Readonly<Record<string, string>>
  readonly #answerWithinMs: number
  readonly #logger: Logger
  #silentUntil = Number.NEGATIVE_INFINITY
  #refused = false

  constructor(endpoint: string, agent: Agent, { secret, logger, answerWithinMs = 800 }: RemoteReadersOptions) {
    this.#endpoint = endpoint
    this.#agent = agent
    this.#headers = secret === undefined ? {} : { authorization: `Bearer ${secret}` }
    this.#answerWithinMs = answerWithinMs
    this.#logger = logger
  }

  /** Why it is of no use to ask now; undefined when it may be. */
  get silence(): UnavailableError | undefined {
    if (performance.now() >= this.#silentUntil) return undefined
    return new UnavailableError('PARTITION_UNAVAILABLE', `${this.#endpoint} has not answered lately`)
  }

  async ask<T>(method: string, path: string, body: string | undefined, decode: (body: Buffer) => T): Promise<T> {
    try {
      const { status, bytes } = await this.#send(method, path, body, true)
      this.#silentUntil = Number.NEGATIVE_INFINITY
      this.#noteRefusal(status === 401)
      if (status === 200) return decode(bytes)
      if (status === 503) throw decodeError(bytes)
      throw new Error(`status ${status}: ${bytes.subarray(0, 200).toString()}`)
    } catch (error) {
      if (error instanceof UnavailableError) throw error
      const reason = error instanceof Error ? error.message : String(error)
      throw new UnavailableError('PARTITION_UNAVAILABLE', `${this.#endpoint} gave no answer: ${reason}`, 1, error)
    }
  }

  /** Told once: every question to the processor fails until a person sees to it. */
  #noteRefusal(refused: boolean): void {
    if (refused && !this.#refused) {
      const endpoint = this.#endpoint
      this.#logger.error({ endpoint }, 'a processor refuses this process: give both the same CLUSTER_SECRET')
    }
    this.#refused = refused
  }

  #send(method: string, path: string, body: string | undefined, again: boolean): Promise<Reply> {
    const colon = this.#endpoint.lastIndexOf(':')
    return new Promise((resolve, reject) => {
      const request = httpRequest({
        agent: this.#agent,
        host: this.#endpoint.slice(0, colon),
        port: Number(this.#endpoint.slice(colon + 1)),
        method,
        path,
        headers:
          body === undefined ? this.#headers : { ...this.#headers, 'content-length': String(Buffer.byteLength(body)) },
      })
      const timer = setTimeout(() => {
        this.#silentUntil = performance.now() + SILENCE_MS
        request.destroy(new Error(`it took longer than ${this.#answerWithinMs} ms`))
      }, this.#answerWithinMs)
      const end = (settle: () => void): void => {
        clearTimeout(timer)
        settle()
      }
      request.on('error', (error: NodeJS.ErrnoException) => {
        // A kept connection may have been closed just before it was used again: the request has not been seen then.
        if (again && request.reusedSocket && error.code === 'ECONNRESET') {
          return end(() => resolve(this.#send(method, path, body, false)))
        }
        end(() => reject(error))
      })
      request.on('response', (response) => {
        readAll(response).then(
          (reply) => end(() => resolve(reply)),
          (error: unknown) => end(() => reject(error)),
        )
      })
      request.end(body)
    })
  }
}

interface Reply {
  readonly status: number
  readonly bytes: Buffer
}

async function readAll(response: IncomingMessage): Promise<Reply> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.byteLength
    if (bytes > MAX_ANSWER_BYTES) throw new Error(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`)
    chunks.push(chunk)
  }
  return {
    status: response.statusCode ?? 0,
    bytes: chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks),
  }
}
