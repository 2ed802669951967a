import { readFile } from 'node:fs/promises'
import { createLocalJWKSet, errors, importJWK, type JSONWebKeySet, type JWK, type JWTVerifyGetKey } from 'jose'
import type { Logger } from 'pino'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { ProblemError } from '../http/problem.ts'

/** A set older than this, ms, is loaded again beside the next token or readiness check. */
const MAX_AGE_MS = 5 * 60_000
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

export interface KeySetOptions {
  readonly source: string
  readonly logger: Logger
  /** A monotonic clock, ms: a clock that is set back would stop all loads. */
  readonly now: () => number
}

/**
 * The public keys that sign tokens: a JWK set (RFC 7517). It is read again when it is old or lacks a key that a token
 * names, so keys rotate without a restart.
 */
export class KeySet {
  readonly #options: KeySetOptions
  readonly #cooldownMs: number
  #find: JWTVerifyGetKey | undefined
  /** Times of the last load that began and of the last that succeeded, ms. */
  #triedAt = Number.NEGATIVE_INFINITY
  #loadedAt = Number.NEGATIVE_INFINITY
  #loading: Promise<void> | undefined
  #failed = false

  private constructor(options: KeySetOptions) {
    this.#options = options
    this.#cooldownMs = isUrl(options.source) ? COOLDOWN_MS.url : COOLDOWN_MS.file
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
      const message = `AUTH_JWKS: ${options.source}: ${reason(error)}`
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
    if (this.#options.now() - this.#loadedAt > MAX_AGE_MS && this.#mayLoad) void this.#load()
  }

  /**
   * Rejects with JWKSNoMatchingKey when no key fits, and with ProblemError `keys-unavailable` while the set is missing
   * or cannot be reloaded. It never waits for a load.
   */
  readonly find: JWTVerifyGetKey = async (header, token) => {
    const find = this.#isStale ? undefined : this.#find
    if (find === undefined) throw this.#unavailable()
    try {
      return await find(header, token)
    } catch (error) {
      throw isLack(error) && this.#failed ? this.#unavailable() : error
    }
  }

  /** After `find` rejected with `error`, returns the load to await before the next try; undefined: none would help. */
  renewal(error: unknown): Promise<void> | undefined {
    return isLack(error) && this.#mayLoad ? this.#load() : undefined
  }

  get #isStale(): boolean {
    return this.#options.now() - this.#loadedAt > MAX_STALE_MS
  }

  #unavailable(): ProblemError {
    const retryAfter = String(Math.ceil(this.#cooldownMs / 1000))
    // The source's answer goes to the log. A client has no use for it.
    const detail = 'the keys that tokens are signed with cannot be had now'
    return new ProblemError('keys-unavailable', detail, {}, { 'retry-after': retryAfter })
  }

  get #mayLoad(): boolean {
    return this.#loading !== undefined || this.#options.now() - this.#triedAt >= this.#cooldownMs
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
    this.#find = await parse(isUrl(source) ? await fetchText(source) : await readFile(source, 'utf8'))
    this.#loadedAt = now()
  }

  async #tryRead(): Promise<void> {
    const { source, logger } = this.#options
    try {
      await this.#read()
      if (this.#failed) logger.info({ source }, 'the keys that tokens are signed with are known again')
      this.#failed = false
    } catch (error) {
      const failure = `${source}: ${reason(error)}`
      if (!this.#failed) logger.warn({ failure }, 'the keys that tokens are signed with cannot be loaded')
      this.#failed = true
    }
  }
}

/** Whether a new load may bring the missing key. */
function isLack(error: unknown): boolean {
  if (error instanceof ProblemError) return error.kind === 'keys-unavailable'
  return error instanceof errors.JWKSNoMatchingKey
}

function isUrl(source: string): boolean {
  return /^https?:\/\//.test(source)
}

async function parse(text: string): Promise<JWTVerifyGetKey> {
  const { keys } = (JSON.parse(text) ?? {}) as Partial<JSONWebKeySet>
  if (!Array.isArray(keys)) throw new Error('is not a JWK set: it has no "keys"')
  if (keys.length > MAX_KEYS) throw new Error(`has more than ${MAX_KEYS} keys`)
  const usable: JWK[] = []
  for (const key of keys) {
    if (key?.kty === 'oct' || key?.d !== undefined)
      throw new Error('has a private or a secret key: publish public ones')
    if (await isUsable(key)) usable.push(key)
  }
  if (usable.length === 0) throw new Error('has no key that a signature can be verified with')
  return createLocalJWKSet({ keys: usable })
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

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message
}
