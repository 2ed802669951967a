import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { preParsingHookHandler } from 'fastify'
import type { Api } from '../app.ts'
import { ProblemError } from './problem.ts'

/** Sizes are powers of two, from and to, bytes; what is larger is not kept. */
const MIN_BYTES = 16 * 1024
const MAX_BYTES = 1024 * 1024
/** Bytes of buffers that wait to be used again. */
const MAX_FREE_BYTES = 16 * 1024 * 1024

/**
 * Buffers of large answers, to be used again: memory from the system costs as much as what is copied into it, and has the
 * collector look through the whole heap each 64 MiB or so.
 */
export class Bodies {
  readonly #free = new Map<number, Buffer[]>()
  #freeBytes = 0

  /** Bytes that are free. */
  get freeBytes(): number {
    return this.#freeBytes
  }

  /** A buffer of `length` bytes, whatever they are, that is free again when `response` has been handed to the system. */
  take(length: number, response: ServerResponse): Buffer {
    if (length > MAX_BYTES) return Buffer.allocUnsafeSlow(length)
    const size = Math.max(MIN_BYTES, 2 ** Math.ceil(Math.log2(length)))
    const known = this.#free.get(size)?.pop()
    if (known !== undefined) this.#freeBytes -= size
    const buffer = known ?? Buffer.allocUnsafeSlow(size)
    // Of a response that is cut short nobody knows what the system still reads: then the collector has the buffer.
    response.once('finish', () => this.#give(buffer))
    return buffer.subarray(0, length)
  }

  #give(buffer: Buffer): void {
    const size = buffer.length
    if (this.#freeBytes + size > MAX_FREE_BYTES) return
    this.#freeBytes += size
    const free = this.#free.get(size)
    if (free === undefined) this.#free.set(size, [buffer])
    else free.push(buffer)
  }
}

/**
 * Refuses bodies with a content coding (RFC 9110 section 8.4) before they are read: a small one could become a huge one.
 * Before the routes; the body of a GET is not looked at.
 */
export function refuseCodings(api: Api): void {
  api.addHook('onRoute', (route) => {
    if (route.method !== 'GET' && route.method !== 'HEAD') route.preParsing = refuseCoding
  })
}

const refuseCoding: preParsingHookHandler = ({ headers }, _reply, _payload, done) => {
  done(isCoded(headers) ? uncoded() : null)
}

export function isCoded(headers: IncomingHttpHeaders): boolean {
  const { 'content-encoding': codings = '', 'content-length': length = '0', 'transfer-encoding': chunked } = headers
  if (length === '0' && chunked === undefined) return false
  return codings.split(',').some((coding) => !['', 'identity'].includes(coding.trim().toLowerCase()))
}

/** By `Accept-Encoding` clients see that it is not the media type (RFC 9110 section 15.5.16). */
function uncoded(): ProblemError {
  const errors = [{ field: 'content-encoding', message: 'must be identity: bodies are taken as they are' }]
  const detail = 'bodies are not taken compressed, nor in any other content coding'
  return new ProblemError('unsupported-media-type', detail, { errors }, { 'accept-encoding': 'identity' })
}
