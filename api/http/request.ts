import type { IncomingMessage } from 'node:http'
import { isIP, isIPv6 } from 'node:net'
import type { onSendHookHandler } from 'fastify'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import type { Api } from '../app.ts'
import type { FieldError } from './problem.ts'

/** What a caller may name its request; another name is ignored. It comes into logs and headers as it is. */
const NAME = /^[A-Za-z0-9._~:+/=@-]{1,128}$/

export type NameOf = (request: Pick<IncomingMessage, 'headers'>) => string

/** Names requests: as the caller does in `X-Request-Id`, else `<prefix>-<number>`. */
export function requestNames(prefix: string): NameOf {
  let last = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    if (typeof given === 'string' && NAME.test(given)) return given
    last += 1
    return `${prefix}-${last.toString(36)}`
  }
}

/** The scheme and the authority of a target in absolute form (RFC 9112 section 3.2.2). */
const ORIGIN = /^https?:\/\/[^/?#]*/i

/** The path of a request target, as routes are found by it. Its percent-encoding must be that of UTF-8. */
export function pathOf(target: string): string {
  return decodeURI(target.replace(ORIGIN, '').split(/[?#]/, 1)[0] || '/')
}

/**
 * What is wrong with the query of a request target. Fastify takes a percent-encoding that is not UTF-8 as it stands there:
 * devices would be looked for by `M%FCnchen`, and none be found.
 */
export function queryFault(target: string): FieldError | undefined {
  const at = target.indexOf('?')
  if (at < 0 || target.indexOf('%', at) < 0) return undefined
  for (const parameter of target.slice(at + 1).split('&')) {
    if (isDecodable(parameter)) continue
    const name = parameter.split('=', 1)[0] as string
    return { field: isDecodable(name) ? name : 'query', message: 'has a percent-encoding that is not UTF-8' }
  }
  return undefined
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}

/** RFC 3986 section 3.2.2, but what stands in brackets; it may be empty. IPv4 addresses are among the names. */
const HOST = /^(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*|\[([^\]]*)\])(?::[0-9]*)?$/
const FUTURE_ADDRESS = /^v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+$/i

/** Nearly all requests to a process are for one host: what was found of the last is not found again. */
let lastHost = ''

/** Of a Host that is there, once. */
export const NO_HOST = 'is no host'

/** What is wrong with the Host of a request: then the answer is 400 (RFC 9112 section 3.2). HTTP/1.0 had none. */
export function hostFault({ headers, rawHeaders, httpVersion }: IncomingMessage): string | undefined {
  const { host } = headers
  if (host === undefined) return httpVersion === '1.1' ? 'is required' : undefined
  // Node keeps the first, and a proxy in front may have gone by the last.
  let lines = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') lines++
  }
  if (lines > 1) return 'is given more than once'
  if (host === lastHost) return undefined
  if (!isHost(host)) return NO_HOST
  lastHost = host
  return undefined
}

function isHost(text: string): boolean {
  const found = HOST.exec(text)
  if (found === null) return false
  const [, address] = found
  return address === undefined || isIPv6(address) || FUTURE_ADDRESS.test(address)
}

/**
 * HEAD tells the length that GET would, or none (RFC 9110 section 8.6). Fastify takes the body of a HEAD away before it is
 * compressed; here that is the last step but one. After whatever else has to do with bodies, before the routes.
 */
export function answerHeadAsGet(api: Api): void {
  api.addHook('onRoute', (route) => {
    if (route.method !== 'HEAD') return
    const [takeBodyAway, ...others] = [route.onSend ?? []].flat()
    if (takeBodyAway !== undefined) route.onSend = [...others, takeBodyAway, tellNoLengthOf304]
  })
}

/** It would be that of the answer 200 (RFC 9110 section 8.6), and not the 0 of a body that is not there. */
const tellNoLengthOf304: onSendHookHandler = (_request, reply, payload, done) => {
  if (reply.statusCode === 304) reply.removeHeader('content-length')
  done(null, payload)
}

/** Names that proxy-addr, which Fastify reads X-Forwarded-For with, knows. */
const NETWORKS = new Set(['loopback', 'linklocal', 'uniquelocal'])

/** Checks a list for Fastify's `trustProxy`: `address,network/bits,name,…`. Throws ConfigurationError. */
export function trustedProxies(list: string | undefined): string | undefined {
  for (const proxy of list?.split(',') ?? []) {
    if (NETWORKS.has(proxy) || isNetwork(proxy)) continue
    const rule = `an address, a network/bits of at least 1 bit, or one of ${[...NETWORKS].join(', ')}`
    const message = `HTTP_TRUSTED_PROXIES: ${JSON.stringify(proxy)} is none of ${rule}`
    throw new ConfigurationError('INVALID_CONFIGURATION', message)
  }
  return list
}

function isNetwork(proxy: string): boolean {
  const [address = '', bits, ...more] = proxy.split('/')
  const family = isIP(address)
  if (family === 0 || more.length > 0) return false
  if (bits === undefined) return true
  // Of all addresses nothing is a network for proxy-addr, and every caller could say who it is.
  return /^\d{1,3}$/.test(bits) && Number(bits) >= 1 && Number(bits) <= (family === 4 ? 32 : 128)
}
