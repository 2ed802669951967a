import { type Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import type { Logger } from 'pino'
import { hostAndPort } from '../../processor/contract/address.ts'
import { reasonOf, UnavailableError } from '../../processor/contract/errors.ts'
import { decodeError } from '../../processor/contract/query-wire.ts'
import { sign } from '../../processor/runtime/cluster-secret.ts'
import { within } from '../../processor/runtime/pause.ts'

/** A copy has not answered in time, and may answer yet. */
export class LateError extends UnavailableError {
  constructor(message: string) {
    super('PARTITION_UNAVAILABLE', message)
  }
}

/** Resolves with the answer, or rejects with a LateError after `withinMs`. */
export function inTime<T>(answer: Promise<T>, withinMs: number, onLate: () => string): Promise<T> {
  return within(answer, withinMs, () => {
    throw new LateError(onLate())
  })
}

/** Bytes of one answer. A processor never sends a longer one. */
const MAX_ANSWER_BYTES = 128 * 1024 * 1024
/** Time for a processor's answer, ms: less than readers wait for a copy, so that they hear why it failed. */
export const ANSWER_WITHIN_MS = 800
/** A request without an answer is given up after this long, ms. */
export const MAX_ANSWER_MS = 5_000
/** Requests that wait for a connection to one endpoint. Further ones fail as unavailable. */
const MAX_QUEUED = 1_024
/**
 * A request that waited this long for a connection, ms, fails as unavailable. It must ask again while a processor still
 * keeps its scan.
 */
export const MAX_QUEUED_MS = 4_000
/** A late processor counts as silent for this long, ms, or until it answers or its connection breaks. */
const SILENCE_MS = 5_000

export interface ExchangeOptions {
  /** Signs requests; undefined when processors answer anyone. */
  readonly secret: string | undefined
  readonly logger: Logger
  /**
   * A request is late after this long, ms: its callers are told, and the answer is still read. Default
   * ANSWER_WITHIN_MS.
   */
  readonly answerWithinMs?: number
}

/** With a `body` it is a POST, else a GET. */
interface Request<T> {
  readonly path: string
  readonly body?: string
  readonly decode: (body: Buffer) => T
  /** It waits for a late answer. */
  readonly patient: boolean
}

export interface UnderWay<T> {
  /** Rejects with UnavailableError on any failure; with LateError when it is late and not patient. */
  readonly answer: Promise<T>
  /** Resolves when nothing more can come. */
  readonly over: Promise<void>
}

interface Queued {
  readonly patient: boolean
  go(): void
  fail(error: UnavailableError): void
}

/**
 * Sends requests to one endpoint, at most as many at once as the agent has connections. Others wait here in order: in
 * the agent their time would already run, and an abort would not reach them.
 */
export class Exchange {
  readonly #endpoint: string
  readonly #agent: Agent
  readonly #secret: string | undefined
  readonly #answerWithinMs: number
  readonly #logger: Logger
  readonly #queue = new Set<Queued>()
  #underWay = 0
  #silentUntil = Number.NEGATIVE_INFINITY
  #refused = false

  constructor(endpoint: string, agent: Agent, { secret, logger, answerWithinMs = ANSWER_WITHIN_MS }: ExchangeOptions) {
    this.#endpoint = endpoint
    this.#agent = agent
    this.#secret = secret
    this.#answerWithinMs = answerWithinMs
    this.#logger = logger
  }

  /** Why other copies should be asked first. Undefined: no reason. */
  get silence(): LateError | undefined {
    if (performance.now() >= this.#silentUntil) return undefined
    return new LateError(`${this.#endpoint} has not answered lately`)
  }

  begin<T>(request: Request<T>): UnderWay<T> {
    if (this.#underWay < this.#agent.maxSockets) {
      this.#underWay++
      return this.#begin(request)
    }
    const begun = this.#turn(request.patient).then(() => this.#begin(request))
    return { answer: begun.then(({ answer }) => answer), over: begun.then(({ over }) => over, nothing) }
  }

  /** Runs in a place that `#leave` passes on. */
  #begin<T>(request: Request<T>): UnderWay<T> {
    const sent = this.#answer(request)
    const over = sent.then(this.#leave, this.#leave)
    if (request.patient) return { answer: sent, over }
    return { answer: inTime(sent, this.#answerWithinMs, this.#noteLate), over }
  }

  /** Resolves with a place. Rejects with UnavailableError. */
  #turn(patient: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const full = (reason: string) => new UnavailableError('PARTITION_UNAVAILABLE', `${this.#endpoint}: ${reason}`)
      if (this.#queue.size >= MAX_QUEUED) return reject(full(`${MAX_QUEUED} requests wait for a connection`))
      const end = (settle: () => void): void => {
        clearTimeout(timer)
        this.#queue.delete(queued)
        settle()
      }
      const queued: Queued = { patient, go: () => end(resolve), fail: (error) => end(() => reject(error)) }
      const late = () => queued.fail(full(`no connection was free within ${MAX_QUEUED_MS} ms`))
      const timer = setTimeout(late, MAX_QUEUED_MS)
      this.#queue.add(queued)
    })
  }

  /** The place goes to the next who waits. */
  readonly #leave = (): void => {
    const [next] = this.#queue
    if (next === undefined) this.#underWay--
    else next.go()
  }

  readonly #noteLate = (): string => {
    this.#silentUntil = performance.now() + SILENCE_MS
    // Those who wait would meet the same, so they ask others now.
    for (const queued of this.#queue) {
      if (!queued.patient) queued.fail(new LateError(`${this.#endpoint} has not answered lately`))
    }
    return `${this.#endpoint} gave no answer: it took longer than ${this.#answerWithinMs} ms`
  }

  async #answer<T>(request: Request<T>): Promise<T> {
    try {
      const { status, bytes } = await this.#send(request, true)
      this.#noteRefusal(status === 401)
      if (status === 200) return request.decode(bytes)
      if (status === 503) throw decodeError(bytes)
      throw new Error(`status ${status}: ${bytes.subarray(0, 200).toString()}`)
    } catch (error) {
      if (error instanceof UnavailableError) throw error
      const message = `${this.#endpoint} gave no answer: ${reasonOf(error)}`
      throw new UnavailableError('PARTITION_UNAVAILABLE', message, 1, error)
    }
  }

  /** Logged once: every question to the processor fails until a person acts. */
  #noteRefusal(refused: boolean): void {
    if (refused && !this.#refused) {
      const endpoint = this.#endpoint
      this.#logger.error(
        { endpoint },
        'a processor refuses this process: give both the same CLUSTER_SECRET, and set their clocks',
      )
    }
    this.#refused = refused
  }

  #send(asked: Request<unknown>, again: boolean): Promise<Reply> {
    const { path, body } = asked
    const method = body === undefined ? 'GET' : 'POST'
    const headers: Record<string, string> = {}
    if (body !== undefined) headers['content-length'] = String(Buffer.byteLength(body))
    if (this.#secret !== undefined)
      headers['authorization'] = sign(this.#secret, { method, path, body: body ?? '' }, Date.now())
    return new Promise((resolve, reject) => {
      const request = httpRequest({
        agent: this.#agent,
        ...hostAndPort(this.#endpoint),
        method,
        path,
        headers,
      })
      const timer = setTimeout(() => {
        abandoned = true
        request.destroy(new LateError(`${this.#endpoint} gave no answer: it took longer than ${MAX_ANSWER_MS} ms`))
      }, MAX_ANSWER_MS)
      let abandoned = false
      const end = (settle: () => void): void => {
        clearTimeout(timer)
        // It answered, or it is gone, which the next question learns at once.
        if (!abandoned) this.#silentUntil = Number.NEGATIVE_INFINITY
        settle()
      }
      request.on('error', (error: NodeJS.ErrnoException) => {
        // A kept connection may have closed just before its reuse. Then the request was never seen.
        if (again && request.reusedSocket && error.code === 'ECONNRESET') {
          return end(() => resolve(this.#send(asked, false)))
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

function nothing(): void {}

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
