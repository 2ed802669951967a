import type { IncomingHttpHeaders } from 'node:http'
import type { onRequestHookHandler, preParsingHookHandler } from 'fastify'
import type { Api } from '../app.ts'
import { ProblemError } from './problem.ts'

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

function isCoded(headers: IncomingHttpHeaders): boolean {
  const { 'content-encoding': codings = '', 'content-length': length = '0', 'transfer-encoding': chunked } = headers
  if (length === '0' && chunked === undefined) return false
  return codings.split(',').some((coding) => !/^\s*(identity)?\s*$/i.test(coding))
}

/** By `Accept-Encoding` clients see that it is not the media type (RFC 9110 section 15.5.16). */
function uncoded(): ProblemError {
  const errors = [{ field: 'content-encoding', message: 'must be identity: bodies are taken as they are' }]
  const detail = 'bodies are not taken compressed, nor in any other content coding'
  return new ProblemError('unsupported-media-type', detail, { errors }, { 'accept-encoding': 'identity' })
}

/**
 * Tells caches that an answer goes by `Accept-Encoding`, also where it came as it is (RFC 9110 section 12.5.5), and with 304
 * (section 15.4.5): the plugin that compresses does so where it has compressed. Before the routes.
 */
export function tellOfCodings(api: Api): void {
  api.addHook('onRoute', (route) => {
    if (route.compress !== false) route.onRequest = [tellOfCoding, ...[route.onRequest ?? []].flat()]
  })
}

const tellOfCoding: onRequestHookHandler = (_request, reply, done) => {
  reply.header('vary', 'accept-encoding')
  done()
}
