import { createSecretKey, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import {
  calculateJwkThumbprint,
  createLocalJWKSet,
  errors,
  exportJWK,
  importJWK,
  type JSONWebKeySet,
  type JWK,
  type JWTPayload,
  type JWTVerifyGetKey,
  type JWTVerifyOptions,
  jwtVerify,
} from 'jose'
import type { Logger } from 'pino'
import { ConfigurationError } from '../contract/errors.ts'
import type { Configuration } from './environment.ts'
import { Limiter } from './limiter.ts'

/** An older set, ms, is loaded again beside the next token, readiness check, or look whether a key was withdrawn. */
const MAX_AGE_MS = { file: 5_000, url: 5 * 60_000 }
/** A set that cannot be reloaded is used for this long, ms. Then tokens are answered with 503. */
const MAX_STALE_MS = 60 * 60_000
/** Least time between two loads, ms, however many tokens name unknown keys. */
const COOLDOWN_MS = { file: 1_000, url: 30_000 }
/** Longest time for a load, ms. */
const LOAD_WITHIN_MS = 5_000
const MAX_SET_BYTES = 256 * 1024
const MAX_KEYS = 100
/** RFC 7518 section 3.3. */
const MIN_RSA_BITS = 2048
/** The algorithm to try when a key names none, by its type or curve. */
const ALGORITHMS: Readonly<Record<string, string>> = {
  RSA: 'RS256',
  'P-256': 'ES256',
  'P-384': 'ES384',
  'P-521': 'ES512',
  Ed25519: 'EdDSA',
}

export interface TokenSettings {
  readonly keys: { readonly secret: string } | { readonly jwks: string }
  readonly algorithms: readonly string[]
  readonly issuer: string
  readonly audience: string
  readonly maxLifetimeMs: number
}

const SECRET_ALGORITHMS = ['HS256', 'HS384', 'HS512']
const DEFAULT_KEY_ALGORITHMS = ['RS256', 'ES256', 'EdDSA']
const LOOPBACK_URL = /^http:\/\/(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(\/|\?|$)/i

/** Throws ConfigurationError. `needer`: the variable that asks for tokens, such as `AUTH=jwt`. */
export function readTokenSettings(configuration: Configuration, needer: string, audience: string): TokenSettings {
  const { AUTH_SECRET: secret, AUTH_JWKS: jwks, AUTH_ALGORITHMS, AUTH_ISSUER, AUTH_MAX_TOKEN_HOURS } = configuration
  const keys = secret !== undefined ? { secret } : jwks !== undefined ? { jwks } : undefined
  if (keys === undefined || (secret !== undefined && jwks !== undefined)) {
    throw refused(`${needer} needs either AUTH_SECRET (HS256) or AUTH_JWKS (public keys)`)
  }
  if (jwks?.startsWith('http:') === true && !LOOPBACK_URL.test(jwks)) {
    throw refused(`AUTH_JWKS=${shown(jwks)}: keys that come over plain http could be anybody's: use https or a file`)
  }
  const algorithms = AUTH_ALGORITHMS?.split(',') ?? ('secret' in keys ? ['HS256'] : DEFAULT_KEY_ALGORITHMS)
  // A public key must never be taken for a secret (RFC 8725 section 3.1).
  const strange = algorithms.find((name) => SECRET_ALGORITHMS.includes(name) !== 'secret' in keys)
  if (strange !== undefined) {
    throw refused(`AUTH_ALGORITHMS: ${strange} is not used with ${'secret' in keys ? 'AUTH_SECRET' : 'AUTH_JWKS'}`)
  }
  return { keys, algorithms, issuer: AUTH_ISSUER, audience, maxLifetimeMs: AUTH_MAX_TOKEN_HOURS * 3_600_000 }
}

function refused(message: string): ConfigurationError {
  return new ConfigurationError('INVALID_CONFIGURATION', message)
}

/**
 * Why a token was not accepted. `invalid`: it never will be; the message tells no more than its bearer could read in
 * it. `unavailable`: the keys cannot be had now. `busy`: too many are being verified.
 */
export class TokenError extends Error {
  readonly kind: 'invalid' | 'unavailable' | 'busy'
  readonly retryAfterSeconds: number

  constructor(kind: TokenError['kind'], message: string, retryAfterSeconds = 1) {
    super(message)
    this.name = 'TokenError'
    this.kind = kind
    this.retryAfterSeconds = retryAfterSeconds
  }
}

/** Clocks of the issuer and of this process may differ by this much, seconds. */
const LEEWAY_SECONDS = 5
/** Signatures being verified at once. One more token is refused as `busy`. */
const MAX_VERIFYING = 256
/** Tokens that wait for a load of keys. One more is refused as `busy`. All of them may then be verified at once. */
const MAX_AWAITING = MAX_VERIFYING
/** Characters of a token. A longer one is invalid. */
const MAX_TOKEN = 8 * 1024

export interface VerifierOptions extends TokenSettings {
  readonly logger: Logger
  /** Epoch ms. */
  readonly now: () => number
  /** A monotonic clock, ms: the age of keys must not depend on who sets the time. */
  readonly steady: () => number
}

export interface VerifiedToken {
  readonly claims: JWTPayload
  /** Epoch ms. */
  readonly expiresAt: number
  /** False once the key that signed the token is no longer in the set. */
  readonly isTrusted: () => boolean
}

/** Verifies JWTs (RFC 7519) by their signature alone, so that any process can. */
export class TokenVerifier {
  readonly #options: VerifierOptions
  readonly #keys: KeySet | KeyObject
  readonly #verifying = refusing('signatures of tokens', MAX_VERIFYING)
  readonly #awaiting = refusing('waits for the keys of tokens', MAX_AWAITING)

  private constructor(options: VerifierOptions, keys: KeySet | KeyObject) {
    this.#options = options
    this.#keys = keys
  }

  /** Rejects with ConfigurationError when the key file is not one. */
  static async open(options: VerifierOptions): Promise<TokenVerifier> {
    const { keys, logger, steady } = options
    if ('secret' in keys) return new TokenVerifier(options, createSecretKey(Buffer.from(keys.secret)))
    return new TokenVerifier(options, await KeySet.open({ source: keys.jwks, logger, now: steady }))
  }

  /** Says why no token can be verified now; undefined when they can. */
  check(): string | undefined {
    return this.#keys instanceof KeySet ? this.#keys.check() : undefined
  }

  /** Rejects with TokenError. */
  async verify(token: string): Promise<VerifiedToken> {
    const { algorithms, issuer, audience, now, maxLifetimeMs } = this.#options
    if (token.length > MAX_TOKEN) throw new TokenError('invalid', `it has more than ${MAX_TOKEN} characters`)
    const { payload, key } = await this.#verify(token, {
      algorithms: [...algorithms],
      issuer,
      audience,
      clockTolerance: LEEWAY_SECONDS,
      requiredClaims: ['exp'],
      currentDate: new Date(now()),
    })
    const { exp = 0, iat = now() / 1000 } = payload
    if ((exp - iat) * 1000 > maxLifetimeMs) {
      const hours = maxLifetimeMs / 3_600_000
      throw new TokenError('invalid', `it is good for more than ${hours} h, which AUTH_MAX_TOKEN_HOURS allows`)
    }
    return { claims: payload, expiresAt: (exp + LEEWAY_SECONDS) * 1000, isTrusted: await this.#trustIn(key) }
  }

  async #trustIn(key: Parameters<typeof exportJWK>[0]): Promise<() => boolean> {
    const keys = this.#keys
    if (!(keys instanceof KeySet)) return () => true
    const thumbprint = await calculateJwkThumbprint(await exportJWK(key))
    return () => {
      keys.refresh()
      return keys.has(thumbprint)
    }
  }

  async #verify(token: string, options: JWTVerifyOptions) {
    const keys = this.#keys
    try {
      const verify = () =>
        this.#verifying.run(() => jwtVerify(token, keys instanceof KeySet ? keys.find : async () => keys, options))
      if (!(keys instanceof KeySet)) return await verify()
      keys.refresh()
      try {
        return await verify()
      } catch (error) {
        const renewal = keys.renewal(error)
        if (renewal === undefined) throw error
        // Not counted among the signatures: forged tokens with unknown keys would shut out all others.
        await this.#awaiting.run(() => renewal)
        return await verify()
      }
    } catch (error) {
      throw error instanceof errors.JOSEError ? new TokenError('invalid', reasonOf(error)) : error
    }
  }
}

/** A queue would only delay everyone. */
function refusing(what: string, limit: number): Limiter {
  return new Limiter(limit, { ms: 0, over: () => new TokenError('busy', `${limit} ${what} are under way`) })
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

interface KeySetOptions {
  readonly source: string
  readonly logger: Logger
  /** A monotonic clock, ms: a clock that is set back would stop all loads. */
  readonly now: () => number
}

/**
 * The public keys that sign tokens: a JWK set (RFC 7517). It is read again when it is old or lacks a key that a token
 * names, so keys rotate without a restart.
 */
class KeySet {
  readonly #options: KeySetOptions
  readonly #kind: 'file' | 'url'
  #keys: Keys | undefined
  /** Times of the last load that began and of the last that succeeded, ms. */
  #triedAt = Number.NEGATIVE_INFINITY
  #loadedAt = Number.NEGATIVE_INFINITY
  #loading: Promise<void> | undefined
  #failed = false

  private constructor(options: KeySetOptions) {
    this.#options = options
    this.#kind = isUrl(options.source) ? 'url' : 'file'
  }

  /** Rejects with ConfigurationError when a file is not a set of public keys. A URL may answer later. */
  static async open(options: KeySetOptions): Promise<KeySet> {
    const set = new KeySet(options)
    if (isUrl(options.source)) {
      await set.#load()
      return set
    }
    try {
      await set.#read()
    } catch (error) {
      const message = `AUTH_JWKS: ${shown(options.source)}: ${reason(error)}`
      throw new ConfigurationError('INVALID_CONFIGURATION', message, error)
    }
    return set
  }

  /**
   * Says why no token can be verified now; undefined when they can. It also reloads an old set: a process that is not
   * ready gets no token that would.
   */
  check(): string | undefined {
    this.refresh()
    if (!this.#isStale || !this.#failed) return undefined
    // The source's own message may contain its URL, whose query may be a secret.
    return 'the keys that tokens are signed with cannot be had; the log of this process has why'
  }

  /** Reloads an old set without waiting, if a load may begin now. */
  refresh(): void {
    if (this.#options.now() - this.#loadedAt > MAX_AGE_MS[this.#kind] && this.#mayLoad) void this.#load()
  }

  /**
   * Rejects with JWKSNoMatchingKey when no key fits, and with TokenError `unavailable` while the set is missing or
   * cannot be reloaded. It never waits for a load.
   */
  readonly find: JWTVerifyGetKey = async (header, token) => {
    const keys = this.#isStale ? undefined : this.#keys
    if (keys === undefined) throw this.#unavailable()
    try {
      return await keys.find(header, token)
    } catch (error) {
      throw isLack(error) && this.#failed ? this.#unavailable() : error
    }
  }

  /** After `find` rejected with `error`, returns the load to await before the next try; undefined: none would help. */
  renewal(error: unknown): Promise<void> | undefined {
    return isLack(error) && this.#mayLoad ? this.#load() : undefined
  }

  /** The set has the key with this thumbprint (RFC 7638), as far as it is known now. */
  has(thumbprint: string): boolean {
    return this.#keys?.thumbprints.has(thumbprint) === true
  }

  get #isStale(): boolean {
    return this.#options.now() - this.#loadedAt > MAX_STALE_MS
  }

  #unavailable(): TokenError {
    // The source's answer goes to the log. A client has no use for it.
    const detail = 'the keys that tokens are signed with cannot be had now'
    return new TokenError('unavailable', detail, Math.ceil(COOLDOWN_MS[this.#kind] / 1000))
  }

  get #mayLoad(): boolean {
    return this.#loading !== undefined || this.#options.now() - this.#triedAt >= COOLDOWN_MS[this.#kind]
  }

  #load(): Promise<void> {
    this.#loading ??= this.#tryRead().finally(() => {
      this.#loading = undefined
    })
    return this.#loading
  }

  async #read(): Promise<void> {
    const { source, now } = this.#options
    this.#triedAt = now()
    this.#keys = await parse(isUrl(source) ? await fetchText(source) : await readFile(source, 'utf8'))
    this.#loadedAt = now()
  }

  async #tryRead(): Promise<void> {
    const { source, logger } = this.#options
    try {
      await this.#read()
      if (this.#failed) logger.info({ source: shown(source) }, 'the keys that tokens are signed with are known again')
      this.#failed = false
    } catch (error) {
      const failure = `${shown(source)}: ${reason(error)}`
      if (!this.#failed) logger.warn({ failure }, 'the keys that tokens are signed with cannot be loaded')
      this.#failed = true
    }
  }
}

/** Whether a new load may bring the missing key. */
function isLack(error: unknown): boolean {
  if (error instanceof TokenError) return error.kind === 'unavailable'
  return error instanceof errors.JWKSNoMatchingKey
}

function isUrl(source: string): boolean {
  return /^https?:\/\//.test(source)
}

/** Returns a source without what may be a secret in its URL: a password, a query. */
function shown(source: string): string {
  if (!isUrl(source)) return source
  const { origin, pathname } = new URL(source)
  return `${origin}${pathname}`
}

interface Keys {
  readonly find: JWTVerifyGetKey
  readonly thumbprints: ReadonlySet<string>
}

async function parse(text: string): Promise<Keys> {
  const { keys } = (JSON.parse(text) ?? {}) as Partial<JSONWebKeySet>
  if (!Array.isArray(keys)) throw new Error('is not a JWK set: it has no "keys"')
  if (keys.length > MAX_KEYS) throw new Error(`has more than ${MAX_KEYS} keys`)
  const usable: JWK[] = []
  const thumbprints = new Set<string>()
  for (const key of keys) {
    if (key?.kty === 'oct' || key?.d !== undefined)
      throw new Error('has a private or a secret key: publish public ones')
    if (!(await isUsable(key))) continue
    usable.push(key)
    thumbprints.add(await calculateJwkThumbprint(key))
  }
  if (usable.length === 0) throw new Error('has no key that a signature can be verified with')
  return { find: createLocalJWKSet({ keys: usable }), thumbprints }
}

/** Leaves out keys that it does not understand (RFC 7517 section 5) and RSA keys that are too short. */
async function isUsable(key: JWK): Promise<boolean> {
  try {
    if (key.kty === 'RSA' && Buffer.from(key.n ?? '', 'base64url').length * 8 < MIN_RSA_BITS) return false
    await importJWK(key, key.alg ?? ALGORITHMS[key.crv ?? String(key.kty)] ?? '')
    return true
  } catch {
    return false
  }
}

async function fetchText(url: string): Promise<string> {
  const response = await fetch(url, {
    headers: { accept: 'application/jwk-set+json, application/json' },
    redirect: 'error',
    signal: AbortSignal.timeout(LOAD_WITHIN_MS),
  })
  if (!response.ok || response.body === null) throw new Error(`answered ${response.status}`)
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body) {
    bytes += chunk.byteLength
    if (bytes > MAX_SET_BYTES) throw new Error(`is longer than ${MAX_SET_BYTES} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** fetch's own message may have the URL, whose query may be a secret; its cause says what failed. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message
}
