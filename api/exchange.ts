import { type Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import type { Logger } from 'pino'
import { UnavailableError } from '../processor/contract/errors.ts'
import { decodeError } from '../processor/contract/query-wire.ts'
import { inTime, LateError } from './late.ts'

/** Bytes of one answer; a longer one is none of a processor's. */
const MAX_ANSWER_BYTES = 128 * 1024 * 1024
/** A request without an answer is given up after so long, ms. */
const MAX_ANSWER_MS = 5_000
/** For so long, ms, a processor that is late is called silent; or until a request to it is answered, or breaks. */
const SILENCE_MS = 5_000

export interface ExchangeOptions {
  /** What the processors ask callers for; undefined when they do not. */
  readonly secret: string | undefined
  readonly logger: Logger
  /** What has no answer after this, in ms, is late: those who wait are told, and the answer is still read. Default 800. */
  readonly answerWithinMs?: number
}

/** A request that is on its way. */
export interface UnderWay<T> {
  /** Rejects with LateError when it is late, unless it was asked patiently. */
  readonly answer: Promise<T>
  /** Resolves when nothing is to come any more. */
  readonly over: Promise<void>
}

/** Requests to one endpoint. */
export class Exchange {
  readonly #endpoint: string
  readonly #agent: Agent
  readonly #headers: Readonly<Record<string, string>>
  readonly #answerWithinMs: number
  readonly #logger: Logger
  #silentUntil = Number.NEGATIVE_INFINITY
  #refused = false

  constructor(endpoint: string, agent: Agent, { secret, logger, answerWithinMs = 800 }: ExchangeOptions) {
    this.#endpoint = endpoint
    this.#agent = agent
    this.#headers = secret === undefined ? {} : { authorization: `Bearer ${secret}` }
    this.#answerWithinMs = answerWithinMs
    this.#logger = logger
  }

  /** Why others should be asked first; undefined when there is no reason. */
  get silence(): LateError | undefined {
    if (performance.now() >= this.#silentUntil) return undefined
    return new LateError(`${this.#endpoint} has not answered lately`)
  }

  /** Rejects with UnavailableError, whatever goes wrong. */
  ask<T>(method: string, path: string, body: string | undefined, decode: (body: Buffer) => T): Promise<T> {
    return this.begin(method, path, body, decode, false).answer
  }

  /** As `ask`. `patient`: waits for a late answer. */
  begin<T>(
    method: string,
    path: string,
    body: string | undefined,
    decode: (body: Buffer) => T,
    patient: boolean,
  ): UnderWay<T> {
    const sent = this.#answer(method, path, body, decode)
    const over = sent.then(nothing, nothing)
    if (patient) return { answer: sent, over }
    const late = (): string => {
      this.#silentUntil = performance.now() + SILENCE_MS
      return `${this.#endpoint} gave no answer: it took longer than ${this.#answerWithinMs} ms`
    }
    return { answer: inTime(sent, this.#answerWithinMs, late), over }
  }

  async #answer<T>(method: string, path: string, body: string | undefined, decode: (body: Buffer) => T): Promise<T> {
    try {
      const { status, bytes } = await this.#send(method, path, body, true)
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
        abandoned = true
        request.destroy(new LateError(`${this.#endpoint} gave no answer: it took longer than ${MAX_ANSWER_MS} ms`))
      }, MAX_ANSWER_MS)
      let abandoned = false
      const end = (settle: () => void): void => {
        clearTimeout(timer)
        // It speaks, or it is gone, which the next question is told at once.
        if (!abandoned) this.#silentUntil = Number.NEGATIVE_INFINITY
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
