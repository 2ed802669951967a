import { ConfigurationError } from '../../processor/contract/errors.ts'
import type { Configuration } from '../../processor/runtime/environment.ts'

/** Who the API answers, and where it listens. */
export interface Access {
  readonly host: string
  /** Undefined: no token is asked for. */
  readonly tokens: TokenSettings | undefined
}

export interface TokenSettings {
  /** A shared secret, or a file or a URL of public keys. */
  readonly keys: { readonly secret: string } | { readonly jwks: string }
  readonly algorithms: readonly string[]
  readonly issuer: string
  readonly audience: string
}

const SECRET_ALGORITHMS = ['HS256', 'HS384', 'HS512']
const DEFAULT_KEY_ALGORITHMS = ['RS256', 'ES256', 'EdDSA']

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1|::ffff:127(\.\d{1,3}){3})$/i

/** Throws ConfigurationError: without `AUTH` the API is for this machine alone. */
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
