import { createSecretKey, hash, type KeyObject } from 'node:crypto'
import type { onRequestHookHandler } from 'fastify'
import { errors, type JWTPayload, type JWTVerifyOptions, jwtVerify } from 'jose'
import type { Logger } from 'pino'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { isDeviceId } from '../../processor/contract/record.ts'
import type { Configuration } from '../../processor/runtime/environment.ts'
import type { Api } from '../app.ts'
import { keepRecent } from '../http/answer-text.ts'
import { blamed, ProblemError, refusingLimiter } from '../http/problem.ts'
import { type Caller, disjoint, SCOPES, type Scope } from './caller.ts'
import { KeySet } from './keys.ts'

export interface Access {
  readonly host: string
  /** Undefined: the API asks for no token. */
  readonly tokens: TokenSettings | undefined
}

export interface TokenSettings {
  readonly keys: { readonly secret: string } | { readonly jwks: string }
  readonly algorithms: readonly string[]
  readonly issuer: string
  readonly audience: string
}

const SECRET_ALGORITHMS = ['HS256', 'HS384', 'HS512']
const DEFAULT_KEY_ALGORITHMS = ['RS256', 'ES256', 'EdDSA']

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1|::ffff:127(\.\d{1,3}){3})$/i

/** Throws ConfigurationError: without `AUTH` the API serves this machine alone. */
export function readAccess(configuration: Configuration): Access {
  const { HOST, HTTP_HOST, AUTH, AUTH_SECRET, AUTH_JWKS } = configuration
  const host = HTTP_HOST ?? HOST
  if (AUTH === 'jwt') return { host, tokens: readTokenSettings(configuration) }
  const unused = AUTH_SECRET !== undefined ? 'AUTH_SECRET' : AUTH_JWKS !== undefined ? 'AUTH_JWKS' : undefined
  if (unused !== undefined) throw refused(`${unused} is set, but no token is asked for: set AUTH=jwt, or unset it`)
  if (AUTH === undefined && !LOOPBACK.test(host)) {
    const variable = HTTP_HOST === undefined ? 'HOST' : 'HTTP_HOST'
    const ways = 'set AUTH=jwt, or HTTP_HOST=127.0.0.1, or AUTH=none if that is what you want'
    throw refused(
      `${variable}=${host}: the API would answer anyone who reaches this address without asking who it is; ${ways}`,
    )
  }
  return { host, tokens: undefined }
}

function readTokenSettings(configuration: Configuration): TokenSettings {
  const { AUTH_SECRET: secret, AUTH_JWKS: jwks, AUTH_ALGORITHMS, AUTH_ISSUER, AUTH_AUDIENCE } = configuration
  const keys = secret !== undefined ? { secret } : jwks !== undefined ? { jwks } : undefined
  if (keys === undefined || (secret !== undefined && jwks !== undefined)) {
    throw refused('AUTH=jwt needs either AUTH_SECRET (HS256) or AUTH_JWKS (public keys)')
  }
  const algorithms = AUTH_ALGORITHMS?.split(',') ?? ('secret' in keys ? ['HS256'] : DEFAULT_KEY_ALGORITHMS)
  // A public key must never be taken for a secret (RFC 8725 section 3.1).
  const strange = algorithms.find((name) => SECRET_ALGORITHMS.includes(name) !== 'secret' in keys)
  if (strange !== undefined) {
    throw refused(`AUTH_ALGORITHMS: ${strange} is not used with ${'secret' in keys ? 'AUTH_SECRET' : 'AUTH_JWKS'}`)
  }
  return { keys, algorithms, issuer: AUTH_ISSUER, audience: AUTH_AUDIENCE }
}

function refused(message: string): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message)
}

/** Clocks of the issuer and of this process may differ by this much, seconds. */
const LEEWAY_SECONDS = 5
/** A verified token is trusted for this long, ms. Then it is verified again, so that a withdrawn key ends it. */
const BELIEVED_MS = 60_000
/** Verified tokens remembered. At the bound the oldest is forgotten. */
const MAX_REMEMBERED = 10_000
/** Signatures being verified at once. One more token gets 503. */
const MAX_VERIFYING = 256
/** Tokens that wait for a load of keys. One more gets 503. All of them may then be verified at once. */
const MAX_AWAITING = MAX_VERIFYING
/** Characters of a token. A longer one gets 401. */
const MAX_TOKEN = 8 * 1024
const MAX_PREFIXES = 64

const REALM = 'Bearer realm="tidemark"'
/** RFC 6750 section 2.1; the scheme is case-insensitive (RFC 9110 section 11.1). */
const BEARER = /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i

export interface TokensOptions extends TokenSettings {
  readonly logger: Logger
  /** Epoch ms. */
  readonly now: () => number
  /** A monotonic clock, ms: the age of keys must not depend on who sets the time. */
  readonly steady: () => number
}

interface Remembered {
  readonly caller: Caller
  /** Trusted until this monotonic time, ms, unless it expires before. */
  readonly until: number
}

/** Verifies Bearer tokens that are JWTs (RFC 6750, RFC 7519) by their signature alone, so that any process can. */
export class Tokens {
  readonly #options: TokensOptions
  readonly #keys: KeySet | KeyObject
  /** Keyed by the SHA-256 of the token, in the order of verification. */
  readonly #remembered = new Map<string, Remembered>()
  readonly #verifying = refusingLimiter('signatures of tokens', MAX_VERIFYING)
  readonly #awaiting = refusingLimiter('waits for the keys of tokens', MAX_AWAITING)

  private constructor(options: TokensOptions, keys: KeySet | KeyObject) {
    this.#options = options
    this.#keys = keys
  }

  /** Rejects with ConfigurationError when the key file is not one. */
  static async open(options: TokensOptions): Promise<Tokens> {
    const { keys, logger, steady } = options
    if ('secret' in keys) return new Tokens(options, createSecretKey(Buffer.from(keys.secret)))
    return new Tokens(options, await KeySet.open({ source: keys.jwks, logger, now: steady }))
  }

  check(): readonly string[] {
    const problem = this.#keys instanceof KeySet ? this.#keys.check() : undefined
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
    return now() < (caller.expiresAt ?? Number.POSITIVE_INFINITY) && steady() < until
  }

  async #verify(token: string, digest: string): Promise<Caller> {
    const { algorithms, issuer, audience, now, steady } = this.#options
    const until = steady() + BELIEVED_MS
    const payload = await this.#payloadOf(token, {
      algorithms: [...algorithms],
      issuer,
      audience,
      clockTolerance: LEEWAY_SECONDS,
      requiredClaims: ['exp'],
      currentDate: new Date(now()),
    })
    const caller = callerFrom(payload, ((payload.exp as number) + LEEWAY_SECONDS) * 1000)
    keepRecent(this.#remembered, digest, { caller, until }, MAX_REMEMBERED)
    return caller
  }

  async #payloadOf(token: string, options: JWTVerifyOptions): Promise<JWTPayload> {
    const keys = this.#keys
    try {
      if (!(keys instanceof KeySet)) return (await this.#verifying.run(() => jwtVerify(token, keys, options))).payload
      keys.refresh()
      const verify = () => this.#verifying.run(() => jwtVerify(token, keys.find, options))
      try {
        return (await verify()).payload
      } catch (error) {
        const renewal = keys.renewal(error)
        if (renewal === undefined) throw error
        // Not counted among the signatures: forged tokens with unknown keys would shut out all others.
        await this.#awaiting.run(() => renewal)
        return (await verify()).payload
      }
    } catch (error) {
      throw error instanceof errors.JOSEError ? invalidToken(reasonOf(error)) : error
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
  if (token.length > MAX_TOKEN) throw invalidToken(`it has more than ${MAX_TOKEN} characters`)
  return token
}

/** Throws ProblemError when the claims are not for this API, however good the signature is. */
function callerFrom({ sub, scope, devices }: JWTPayload, expiresAt: number): Caller {
  if (scope !== undefined && typeof scope !== 'string') throw invalidToken('its claim scope is not a string')
  if (sub !== undefined && typeof sub !== 'string') throw invalidToken('its claim sub is not a string')
  const scopes = new Set(scope?.split(' ').filter((name): name is Scope => SCOPES.has(name as Scope)))
  return { subject: sub, scopes, prefixes: prefixesFrom(devices), expiresAt }
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

/** Tells the caller no more than it could read in its own token. */
function reasonOf(error: errors.JOSEError): string {
  if (error instanceof errors.JWTExpired) return 'it has expired'
  if (error instanceof errors.JWTClaimValidationFailed) {
    return error.reason === 'missing' ? `it has no claim ${error.claim}` : `its claim ${error.claim} is not accepted`
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return 'its algorithm is not allowed'
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'its signature is not that of the issuer'
  if (error instanceof errors.JWKSNoMatchingKey) return 'no key of the issuer fits it'
  if (error instanceof errors.JWKSMultipleMatchingKeys) return 'it does not say by which key it is signed (kid)'
  return 'it is not a signed JWT'
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
