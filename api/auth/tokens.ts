import { hash } from 'node:crypto'
import type { onRequestHookHandler } from 'fastify'
import { isLoopback } from '../../processor/contract/address.ts'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { isDeviceId } from '../../processor/contract/record.ts'
import type { Configuration } from '../../processor/runtime/environment.ts'
import {
  readTokenSettings,
  TokenError,
  type TokenSettings,
  TokenVerifier,
  type VerifiedToken,
  type VerifierOptions,
} from '../../processor/runtime/jwt.ts'
import type { TlsFiles } from '../../processor/runtime/tls.ts'
import type { Api } from '../app.ts'
import { keepRecent } from '../http/answer-text.ts'
import { blamed, ProblemError } from '../http/problem.ts'
import { type Caller, disjoint, SCOPES, type Scope } from './caller.ts'

export interface Access {
  readonly host: string
  /** Undefined: the API asks for no token. */
  readonly tokens: TokenSettings | undefined
  /** Undefined: plain HTTP. */
  readonly tls: TlsFiles | undefined
}

/** Throws ConfigurationError: without `AUTH` the API serves this machine alone. */
export function readAccess(configuration: Configuration): Access {
  const { HOST, HTTP_HOST, AUTH, AUTH_SECRET, AUTH_JWKS, AUTH_AUDIENCE, MQTT_AUTH } = configuration
  const { HTTP_TLS_CERT: cert, HTTP_TLS_KEY: key } = configuration
  const host = HTTP_HOST ?? HOST
  if ((cert === undefined) !== (key === undefined)) throw refused('HTTP_TLS_CERT and HTTP_TLS_KEY: set both, or none')
  const tls =
    cert === undefined || key === undefined
      ? undefined
      : { cert: { variable: 'HTTP_TLS_CERT', path: cert }, key: { variable: 'HTTP_TLS_KEY', path: key } }
  if (AUTH === 'jwt') return { host, tls, tokens: readTokenSettings(configuration, 'AUTH=jwt', AUTH_AUDIENCE) }
  const forDevices = MQTT_AUTH?.split(',').includes('jwt') === true
  const unused = forDevices
    ? undefined
    : AUTH_SECRET !== undefined
      ? 'AUTH_SECRET'
      : AUTH_JWKS !== undefined
        ? 'AUTH_JWKS'
        : undefined
  if (unused !== undefined) throw refused(`${unused} is set, but no token is asked for: set AUTH=jwt, or unset it`)
  if (AUTH === undefined && !isLoopback(host)) {
    const variable = HTTP_HOST === undefined ? 'HOST' : 'HTTP_HOST'
    const ways = 'set AUTH=jwt, or HTTP_HOST=127.0.0.1, or AUTH=none if that is what you want'
    throw refused(
      `${variable}=${host}: the API would answer anyone who reaches this address without asking who it is; ${ways}`,
    )
  }
  return { host, tls, tokens: undefined }
}

function refused(message: string): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message)
}

/** A verified token is believed for this long, ms. Then it is verified again, as keys may have become too old. */
const BELIEVED_MS = 60_000
/** Verified tokens remembered. At the bound the oldest is forgotten. */
const MAX_REMEMBERED = 10_000
const MAX_PREFIXES = 64

const REALM = 'Bearer realm="tidemark"'
/** RFC 6750 section 2.1; the scheme is case-insensitive (RFC 9110 section 11.1). */
const BEARER = /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i

interface Remembered {
  readonly caller: Caller
  /** Trusted until this monotonic time, ms, unless it expires before. */
  readonly until: number
}

/** Knows callers by the JWTs that they bear (RFC 6750). */
export class Tokens {
  readonly #options: VerifierOptions
  readonly #verifier: TokenVerifier
  /** Keyed by the SHA-256 of the token, in the order of verification. */
  readonly #remembered = new Map<string, Remembered>()

  private constructor(options: VerifierOptions, verifier: TokenVerifier) {
    this.#options = options
    this.#verifier = verifier
  }

  /** Rejects with ConfigurationError when the key file is not one. */
  static async open(options: VerifierOptions): Promise<Tokens> {
    return new Tokens(options, await TokenVerifier.open(options))
  }

  check(): readonly string[] {
    const problem = this.#verifier.check()
    return problem === undefined ? [] : [problem]
  }

  /** Reads `Authorization`. Throws ProblemError `unauthorized`, or `invalid-request` when it is malformed. */
  callerOf(authorization: string | undefined): Caller | Promise<Caller> {
    const token = bearerToken(authorization)
    const digest = hash('sha256', token, 'base64')
    const known = this.#remembered.get(digest)
    if (known !== undefined && this.#isBelieved(known)) return known.caller
    return this.#verify(token, digest)
  }

  #isBelieved({ caller, until }: Remembered): boolean {
    const { now, steady } = this.#options
    return now() < (caller.expiresAt ?? Number.POSITIVE_INFINITY) && steady() < until && caller.isTrusted()
  }

  async #verify(token: string, digest: string): Promise<Caller> {
    const until = this.#options.steady() + BELIEVED_MS
    try {
      const caller = callerFrom(await this.#verifier.verify(token))
      keepRecent(this.#remembered, digest, { caller, until }, MAX_REMEMBERED)
      return caller
    } catch (error) {
      throw error instanceof TokenError ? problemFor(error) : error
    }
  }
}

function bearerToken(authorization: string | undefined): string {
  if (authorization === undefined) throw unauthorized('a Bearer token is needed', REALM)
  const token = BEARER.exec(authorization)?.[1]
  if (token === undefined) {
    if (!/^bearer\b/i.test(authorization)) throw unauthorized('a Bearer token is needed', REALM)
    const message = 'must be Bearer and a token (RFC 6750 section 2.1)'
    throw new ProblemError('invalid-request', `authorization ${message}`, blamed('authorization', message), {
      'www-authenticate': challenge('invalid_request', message),
    })
  }
  return token
}

/** Throws ProblemError when the claims are not for this API, however good the signature is. */
function callerFrom({ claims: { sub, scope, devices }, expiresAt, isTrusted }: VerifiedToken): Caller {
  if (scope !== undefined && typeof scope !== 'string') throw invalidToken('its claim scope is not a string')
  if (sub !== undefined && typeof sub !== 'string') throw invalidToken('its claim sub is not a string')
  const scopes = new Set(scope?.split(' ').filter((name): name is Scope => SCOPES.has(name as Scope)))
  return { subject: sub, scopes, prefixes: prefixesFrom(devices), expiresAt, isTrusted }
}

function prefixesFrom(devices: unknown): readonly string[] | undefined {
  if (devices === undefined) return undefined
  if (!Array.isArray(devices) || devices.length > MAX_PREFIXES || !devices.every(isBeginning)) {
    throw invalidToken(`its claim devices is not an array of up to ${MAX_PREFIXES} beginnings of device ids`)
  }
  return disjoint(devices)
}

/** A prefix of a device id has the same form as an id. */
function isBeginning(value: unknown): value is string {
  return typeof value === 'string' && isDeviceId(value)
}

function problemFor({ kind, message, retryAfterSeconds }: TokenError): ProblemError {
  if (kind === 'invalid') return invalidToken(message)
  if (kind === 'busy') return ProblemError.overloaded(message)
  return new ProblemError('keys-unavailable', message, {}, { 'retry-after': String(retryAfterSeconds) })
}

function invalidToken(reason: string): ProblemError {
  return unauthorized(`the token is not accepted: ${reason}`, challenge('invalid_token', reason))
}

/** `description` holds only characters that RFC 6750 section 3 allows. */
function challenge(error: string, description: string): string {
  return `${REALM}, error="${error}", error_description="${description}"`
}

function unauthorized(detail: string, header: string): ProblemError {
  return new ProblemError('unauthorized', detail, blamed('authorization', detail), { 'www-authenticate': header })
}

function insufficientScope(scope: Scope): ProblemError {
  const header = `${challenge('insufficient_scope', `the scope ${scope} is needed`)}, scope="${scope}"`
  const detail = `the token lacks the scope ${scope}`
  return new ProblemError('forbidden', detail, blamed('authorization', detail), { 'www-authenticate': header })
}

/**
 * Asks for a token with the scopes that a route names, before its body is read. Must be called before the routes are
 * added.
 */
export function requireTokens(api: Api, tokens: Tokens): void {
  api.decorateRequest('caller', null)
  const hooks = new Map<string, onRequestHookHandler>()
  api.addHook('onRoute', (route) => {
    const scope = route.config?.scope
    if (scope === undefined || scope === null) return
    const needed = [scope].flat()
    const name = needed.join(' ')
    const hook = hooks.get(name) ?? tokenHook(tokens, needed)
    hooks.set(name, hook)
    const own = [route.onRequest ?? []].flat()
    // Fastify makes a HEAD route of its GET route, hooks included.
    if (!own.includes(hook)) route.onRequest = [hook, ...own]
  })
}

function tokenHook(tokens: Tokens, needed: readonly Scope[]): onRequestHookHandler {
  return (request, _reply, done) => {
    const admit = (caller: Caller): void => {
      const lacked = needed.find((scope) => !caller.scopes.has(scope))
      if (lacked !== undefined) return done(insufficientScope(lacked))
      request.caller = caller
      done()
    }
    try {
      const caller = tokens.callerOf(request.headers.authorization)
      // A remembered token costs no turn of the event loop.
      if (caller instanceof Promise) caller.then(admit, done)
      else admit(caller)
    } catch (error) {
      done(error as Error)
    }
  }
}
