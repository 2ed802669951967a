import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Logger } from 'pino'
import { TidemarkError, UnavailableError } from '../contract/errors.ts'
import type { Answer, PartitionReader } from '../contract/query.ts'
import {
  COPIES_PATH,
  decodeListQuestion,
  decodePastQuestion,
  decodeQuestions,
  encodeCopies,
  encodeError,
  encodeListing,
  encodeOutcomes,
  encodePast,
  LIST_PATH,
  MAX_ANSWER_BYTES,
  MAX_REQUEST_BYTES,
  PAST_PATH,
  type Question,
  READ_PATH,
  WireFormatError,
} from '../contract/query-wire.ts'
import { isSigned } from '../runtime/cluster-secret.ts'
import { Endpoint, type EndpointOptions, type Handler, reply } from '../runtime/health-server.ts'
import {
  decodeSearchQuestion,
  decodeSummaryQuestion,
  encodeSearchSlice,
  encodeSummarySlice,
  SEARCH_PATH,
  SUMMARY_PATH,
} from '../search/wire.ts'

/** `read` is short, `held` waits until its copy is far enough, `search` is a slice of a search. */
type Kind = 'read' | 'held' | 'search'
/** Requests under way; one more gets 503. Each kind has its own bound, so that slow work refuses no read. */
const MAX_UNDER_WAY: Readonly<Record<Kind, number>> = { read: 512, held: 512, search: 512 }
const UNKNOWN_CALLER = 'the caller does not hold the CLUSTER_SECRET of this processor, or its clock is wrong'
/** Answers of fewer bytes are sent as text. Node writes a head and a text of 16 KiB together from its stack. */
const MAX_TEXT_BYTES = 12 * 1024

export interface QueryServerOptions extends Omit<EndpointOptions, 'handler' | 'variable'> {
  /** Callers must sign their requests with it (see `isSigned`); undefined: anyone is answered. */
  readonly secret: string | undefined
}

/** A processor's endpoint, at which api processes ask for what its copies hold. */
export class QueryServer implements AsyncDisposable {
  /** host:port at which readers reach it. */
  readonly address: string
  readonly #endpoint: Endpoint
  readonly #questions: Questions

  private constructor(endpoint: Endpoint, questions: Questions) {
    this.address = endpoint.address
    this.#endpoint = endpoint
    this.#questions = questions
  }

  /** Rejects with ConfigurationError PORT_UNAVAILABLE when the address cannot be listened on. */
  static async open(options: QueryServerOptions): Promise<QueryServer> {
    const questions = new Questions(options.secret, options.logger)
    const endpoint = await Endpoint.open({ ...options, variable: 'QUERY_PORT', handler: questions.handle })
    return new QueryServer(endpoint, questions)
  }

  /** The processor needs the address before it has a reader: until then questions are answered with an error. */
  serve(reader: PartitionReader): void {
    this.#questions.reader = reader
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#endpoint[Symbol.asyncDispose]()
  }
}

class Questions {
  reader: PartitionReader | undefined
  readonly #secret: string | undefined
  readonly #logger: Logger
  readonly #underWay: Record<Kind, number> = { read: 0, held: 0, search: 0 }

  constructor(secret: string | undefined, logger: Logger) {
    this.#secret = secret
    this.#logger = logger
  }

  readonly handle: Handler = (request, response, path) => {
    const question = QUESTIONS.get(path)
    if (question === undefined || request.method !== (question.answer === undefined ? 'GET' : 'POST')) return false
    const { kind } = question
    if (this.#underWay[kind] < MAX_UNDER_WAY[kind]) void this.#answer(request, response, path, question)
    else fail(response, new UnavailableError('PARTITION_UNAVAILABLE', 'overloaded'))
    return true
  }

  #isKnown({ method = '', headers }: IncomingMessage, path: string, body: string): boolean {
    return (
      this.#secret === undefined || isSigned(this.#secret, { method, path, body }, headers.authorization, Date.now())
    )
  }

  /** Never rejects. */
  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
    { kind, answer }: AnswerOf,
  ): Promise<void> {
    this.#underWay[kind]++
    try {
      const { reader } = this
      const body = answer === undefined ? '' : await bodyOf(request)
      if (body === undefined) return refuse(response, 413, `more than ${MAX_REQUEST_BYTES} bytes`)
      if (!this.#isKnown(request, path, body)) return refuse(response, 401, UNKNOWN_CALLER)
      if (reader === undefined) throw new UnavailableError('PARTITION_UNAVAILABLE', 'the processor is starting')
      if (answer === undefined) return reply(response, 200, encodeCopies(await reader.copies()))
      send(response, await answer(reader, body))
    } catch (error) {
      if (error instanceof TidemarkError) return fail(response, error)
      if (error instanceof WireFormatError) return refuse(response, 400, error.message)
      if (request.destroyed && !request.complete) return
      this.#logger.error({ err: error, path }, 'a question cannot be answered')
      refuse(response, 500, 'an error of this processor; its log has more')
    } finally {
      this.#underWay[kind]--
    }
  }
}

interface AnswerOf {
  readonly kind: Kind
  /** Answers a request with a body. Undefined: the request asks for the copies. */
  readonly answer: ((reader: PartitionReader, body: string) => Promise<readonly Buffer[]>) | undefined
}

const QUESTIONS: ReadonlyMap<string, AnswerOf> = new Map<string, AnswerOf>([
  [COPIES_PATH, { kind: 'read', answer: undefined }],
  [
    READ_PATH,
    { kind: 'read', answer: async (reader, body) => encodeOutcomes(await readAll(reader, decodeQuestions(body))) },
  ],
  [
    LIST_PATH,
    {
      kind: 'read',
      answer: async (reader, body) => {
        const { partition, after, limit } = decodeListQuestion(body)
        return encodeListing(await reader.list(partition, after, limit))
      },
    },
  ],
  [
    PAST_PATH,
    {
      kind: 'held',
      answer: async (reader, body) => {
        const { position, deviceId, withinMs } = decodePastQuestion(body)
        return encodePast(await reader.getPast(position, deviceId, withinMs))
      },
    },
  ],
  [
    SEARCH_PATH,
    {
      kind: 'search',
      answer: async (reader, body) => encodeSearchSlice(await reader.search(decodeSearchQuestion(body))),
    },
  ],
  [
    SUMMARY_PATH,
    {
      kind: 'search',
      answer: async (reader, body) => encodeSummarySlice(await reader.summarize(decodeSummaryQuestion(body))),
    },
  ],
])

/** Each question has an outcome of its own: one partition that is not here takes nothing from the others. */
async function readAll(
  reader: PartitionReader,
  questions: readonly Question[],
): Promise<(readonly Answer[] | TidemarkError)[]> {
  const outcomes = await Promise.all(
    questions.map(({ partition, deviceIds }) =>
      reader.getMany(partition, deviceIds).catch((error: unknown) => {
        if (error instanceof TidemarkError) return error
        throw error
      }),
    ),
  )
  let bytes = 0
  return outcomes.map((outcome, i) => {
    if (outcome instanceof TidemarkError) return outcome
    for (const { status } of outcome) bytes += status === undefined ? 0 : status.end - status.start
    if (i === 0 || bytes <= MAX_ANSWER_BYTES) return outcome
    return new UnavailableError('PARTITION_UNAVAILABLE', 'the answers are too large to be given at once: ask again')
  })
}

/** Undefined when the body is too large. */
async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.byteLength
    if (bytes > MAX_REQUEST_BYTES) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks, bytes).toString()
}

/**
 * Sends a small answer as text, a character for each byte, in one piece with its head. Bytes would be a second piece
 * and memory outside the heap, for which V8 collects the whole heap, cached statuses included, every few seconds.
 */
function send(response: ServerResponse, parts: readonly Buffer[]): void {
  let bytes = 0
  for (const part of parts) bytes += part.byteLength
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes })
  if (bytes > MAX_TEXT_BYTES) response.end(Buffer.concat(parts, bytes))
  else response.end(parts.map((part) => part.toString('latin1')).join(''), 'latin1')
}

function fail(response: ServerResponse, error: TidemarkError): void {
  reply(response, 503, encodeError(error))
}

/** Ends the connection of a wrong caller: the rest of its request is not read. */
function refuse(response: ServerResponse, status: number, message: string): void {
  response.setHeader('connection', 'close')
  reply(response, status, JSON.stringify({ message }))
}
