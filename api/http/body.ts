import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { preParsingHookHandler } from 'fastify'
import type { Api } from '../app.ts'
import { ProblemError } from './problem.ts'

/** Buffer sizes are powers of two between these, bytes. Larger buffers are not kept. */
const MIN_BYTES = 16 * 1024
const MAX_BYTES = 1024 * 1024
/** Bytes of buffers that wait to be used again. */
const MAX_FREE_BYTES = 16 * 1024 * 1024

/**
 * Reuses the buffers of large answers. New memory costs as much as the copy itself, and makes the collector scan the
 * whole heap every 64 MiB or so.
 */
export class Bodies {
  readonly #free = new Map<number, Buffer[]>()
  #freeBytes = 0

  get freeBytes(): number {
    return this.#freeBytes
  }

  /** Returns a buffer of `length` bytes with any content. It is free again once `response` was handed to the system. */
  take(length: number, response: ServerResponse): Buffer {
    if (length > MAX_BYTES) return Buffer.allocUnsafeSlow(length)
    const size = Math.max(MIN_BYTES, 2 ** Math.ceil(Math.log2(length)))
    const known = this.#free.get(size)?.pop()
    if (known !== undefined) this.#freeBytes -= size
    const buffer = known ?? Buffer.allocUnsafeSlow(size)
    // Nobody knows what the system still reads of an answer that was cut short. The collector frees its buffer.
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
 * Refuses bodies with a content coding (RFC 9110 section 8.4) before they are read: a small one could expand to a huge
 * one. Must be called before the routes are added. Bodies of GET are ignored.
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

/** `Accept-Encoding` tells clients that the coding is refused, not the media type (RFC 9110 section 15.5.16). */
function uncoded(): ProblemError {
  const errors = [{ field: 'content-encoding', message: 'must be identity: bodies are taken as they are' }]
  const detail = 'bodies are not taken compressed, nor in any other content coding'
  return new ProblemError('unsupported-media-type', detail, { errors }, { 'accept-encoding': 'identity' })
}
