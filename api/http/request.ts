import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import type { onSendHookHandler } from 'fastify'
import { isLoopback } from '../../processor/contract/address.ts'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import type { Api } from '../app.ts'
import { blamed, type FieldError, ProblemError } from './problem.ts'

/**
 * A caller may give its request a name of this form, which goes into logs and headers as it is. Another name is
 * ignored.
 */
const NAME = /^[A-Za-z0-9._~:+/=@-]{1,128}$/

export type NameOf = (request: Pick<IncomingMessage, 'headers'>) => string

/** Names a request as its caller does in `X-Request-Id`, else `<prefix>-<number>`. */
export function requestNames(prefix: string): NameOf {
  let last = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    if (typeof given === 'string' && NAME.test(given)) return given
    last += 1
    return `${prefix}-${last.toString(36)}`
  }
}

/** Scheme and authority of a target in absolute form (RFC 9112 section 3.2.2). */
const ORIGIN = /^https?:\/\/[^/?#]*/i

/** Returns the path by which routes are found. Its percent-encoding must be UTF-8. */
export function pathOf(target: string): string {
  return decodeURI(target.replace(ORIGIN, '').split(/[?#]/, 1)[0] || '/')
}

/**
 * Finds what is wrong with the query of a target. Fastify keeps a percent-encoding that is not UTF-8 as it stands: it
 * would look for devices named `M%FCnchen` and find none.
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

/** Name or address, in brackets if it has colons, and port (RFC 9110 section 7.2). */
const HOST = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/

/**
 * Refuses requests to another name than those of this machine. Any web page can have its own name resolved to 127.0.0.1
 * and then read what answers there (DNS rebinding). Must be called before the routes are added.
 */
export function requireLoopbackName(api: Api): void {
  api.addHook('onRequest', ({ headers: { host } }, _reply, done) => {
    const [, address, name] = host === undefined ? [] : (HOST.exec(host) ?? [])
    if (host === undefined || isLoopback(address ?? name ?? '')) return done()
    const message = 'is no name of this machine; where another name leads here on purpose, set AUTH=jwt or AUTH=none'
    done(new ProblemError('forbidden', `host ${message}`, blamed('host', message)))
  })
}

/**
 * Makes HEAD tell the length that GET would, or none (RFC 9110 section 8.6): Fastify takes the body of a HEAD away before
 * it is compressed. Must be called after all hooks that touch bodies, before the routes are added.
 */
export function answerHeadAsGet(api: Api): void {
  api.addHook('onRoute', (route) => {
    if (route.method !== 'HEAD') return
    const [takeBodyAway, ...others] = [route.onSend ?? []].flat()
    if (takeBodyAway !== undefined) route.onSend = [...others, takeBodyAway, tellNoLengthOf304]
  })
}

/** The length would be that of the 200 answer, not the 0 of a missing body (RFC 9110 section 8.6). */
const tellNoLengthOf304: onSendHookHandler = (_request, reply, payload, done) => {
  if (reply.statusCode === 304) reply.removeHeader('content-length')
  done(null, payload)
}

/** Names that proxy-addr knows; Fastify reads X-Forwarded-For with it. */
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
  // proxy-addr has no network of all addresses, and with one every caller could claim any address.
  return /^\d{1,3}$/.test(bits) && Number(bits) >= 1 && Number(bits) <= (family === 4 ? 32 : 128)
}
