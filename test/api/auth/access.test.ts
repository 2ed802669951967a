import { describe, expect, it, test } from 'vitest'
import { readAccess } from '../../../api/auth/tokens.ts'
import { ConfigurationError } from '../../../processor/contract/errors.ts'
import { readEnvironment } from '../../../processor/runtime/environment.ts'

const SECRET = 'not-so-secret-but-32-bytes-long!'
const access = (environment: Record<string, string>) => readAccess(readEnvironment(environment))

function refusal(environment: Record<string, string>): string {
  try {
    access(environment)
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationError)
    const { message } = error as Error
    expect(message).not.toContain('\n')
    return message
  }
  throw new Error('it was not refused')
}

describe('without AUTH', () => {
  it.each(['127.0.0.1', '127.8.9.1', 'localhost', '::1', '::ffff:127.0.0.1'])('the API is for %s', (HOST) => {
    expect(access({ HOST })).toEqual({ host: HOST, tokens: undefined })
  })

  it.each(['0.0.0.0', '::', '10.0.0.7', 'example.org', '127.0.0.1.example.org', 'localhost.example.org'])(
    'it is not for %s',
    (HOST) => {
      const message = refusal({ HOST })
      expect(message).toMatch(`HOST=${HOST}: `)
      for (const way of ['AUTH=jwt', 'AUTH=none', 'HTTP_HOST=127.0.0.1']) expect(message).toContain(way)
      expect(access({ HOST, AUTH: 'none' })).toEqual({ host: HOST, tokens: undefined })
    },
  )

  it('MQTT may be for all where the API is not', () => {
    expect(access({ HOST: '0.0.0.0', HTTP_HOST: '127.0.0.1' }).host).toBe('127.0.0.1')
    expect(refusal({ HTTP_HOST: '0.0.0.0' })).toMatch(/^HTTP_HOST=0\.0\.0\.0: /)
  })

  it('a key that would not be used is refused', () => {
    for (const AUTH of ['', 'none']) {
      expect(refusal({ AUTH, AUTH_SECRET: SECRET })).toMatch(/^AUTH_SECRET is set, .*AUTH=jwt/)
      expect(refusal({ AUTH, AUTH_JWKS: 'jwks.json' })).toMatch(/^AUTH_JWKS is set, .*AUTH=jwt/)
    }
  })
})

describe('AUTH=jwt', () => {
  it('has a secret or public keys, and algorithms of that kind alone', () => {
    const names = { issuer: 'tidemark', audience: 'tidemark', maxLifetimeMs: 720 * 3_600_000 }
    expect(access({ AUTH: 'jwt', AUTH_SECRET: SECRET, HOST: '0.0.0.0' })).toEqual({
      host: '0.0.0.0',
      tokens: { keys: { secret: SECRET }, algorithms: ['HS256'], ...names },
    })
    expect(access({ AUTH: 'jwt', AUTH_JWKS: 'https://id.example/jwks', AUTH_AUDIENCE: 'fleet' }).tokens).toEqual({
      keys: { jwks: 'https://id.example/jwks' },
      algorithms: ['RS256', 'ES256', 'EdDSA'],
      ...names,
      audience: 'fleet',
    })
    expect(access({ AUTH: 'jwt', AUTH_JWKS: 'f', AUTH_ALGORITHMS: 'PS256,ES384' }).tokens?.algorithms).toEqual([
      'PS256',
      'ES384',
    ])
  })

  it('is refused without a key, with two kinds of them, and with algorithms of the other kind', () => {
    const both = { AUTH_SECRET: SECRET, AUTH_JWKS: 'f' }
    for (const keys of [{}, both]) expect(refusal({ AUTH: 'jwt', ...keys })).toMatch(/AUTH_SECRET .*AUTH_JWKS/)
    expect(refusal({ AUTH: 'jwt', AUTH_JWKS: 'f', AUTH_ALGORITHMS: 'RS256,HS256' })).toMatch(/HS256 .*AUTH_JWKS/)
    expect(refusal({ AUTH: 'jwt', AUTH_SECRET: SECRET, AUTH_ALGORITHMS: 'RS256' })).toMatch(/RS256 .*AUTH_SECRET/)
  })

  test.each([
    ['AUTH', 'basic'],
    ['AUTH_ALGORITHMS', 'none'],
    ['AUTH_ALGORITHMS', 'HS256,none'],
    ['AUTH_ALGORITHMS', 'hs256'],
    ['AUTH_ALGORITHMS', 'HS256,'],
  ])('%s=%s is refused by name', (name, value) => {
    expect(refusal({ AUTH: 'jwt', AUTH_SECRET: SECRET, [name]: value })).toMatch(`${name}="${value}"`)
  })

  it('a secret under 32 bytes is refused, and not shown', () => {
    const message = refusal({ AUTH: 'jwt', AUTH_SECRET: SECRET.slice(1) })
    expect(message).toMatch(/^AUTH_SECRET=…: .*32/)
    expect(message).not.toContain(SECRET.slice(1))
  })
})
