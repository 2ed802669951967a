import { createHmac } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect } from 'vitest'
import type { AppOptions } from '../../../api/app.ts'
import { Tokens } from '../../../api/auth/tokens.ts'
import type { TokenSettings } from '../../../processor/runtime/jwt.ts'
import { type Answered, ask } from '../conformance.ts'
import { type Stage, silent, stage } from '../stage.ts'

export const SECRET = 'not-so-secret-but-32-bytes-long!'
export const START = Date.parse('2026-11-24T10:00:00Z')
const SETTINGS: TokenSettings = {
  keys: { secret: SECRET },
  algorithms: ['HS256'],
  issuer: 'tidemark',
  audience: 'tidemark',
  maxLifetimeMs: 24 * 3_600_000,
}
export const CLAIMS = {
  sub: 'ops',
  iss: 'tidemark',
  aud: 'tidemark',
  exp: START / 1000 + 3600,
  scope: 'devices:read devices:write ops:read',
}

/** Epoch ms, and ms of a clock that nobody sets. */
export const clock = { now: START, steady: 0 }
beforeEach(() => {
  Object.assign(clock, { now: START, steady: 0 })
})

export function pass(ms: number): void {
  clock.now += ms
  clock.steady += ms
}

/** Of all tests of a file. */
export const folder = { path: '' }
beforeAll(async () => {
  folder.path = await mkdtemp(join(tmpdir(), 'tidemark-tokens-'))
})
afterAll(() => rm(folder.path, { recursive: true, force: true }))

export function tokensOf(settings: Partial<TokenSettings> = {}): Promise<Tokens> {
  const clocks = { now: () => clock.now, steady: () => clock.steady }
  return Tokens.open({ ...SETTINGS, ...settings, logger: silent, ...clocks })
}

export function guardedBy(tokens: Tokens, options: Partial<AppOptions> = {}): Promise<Stage> {
  return stage({ tokens, ...options })
}

export async function guarded(
  settings: Partial<TokenSettings> = {},
  options: Partial<AppOptions> = {},
): Promise<Stage> {
  return guardedBy(await tokensOf(settings), options)
}

/** HMAC by hand, so that the token can be anything. */
export function signed(claims: object, header: object = { alg: 'HS256' }, secret: string | Buffer = SECRET): string {
  const head = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  return `${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`
}

export function get(on: Stage, token: string | undefined, url = '/v1/devices/a'): Promise<Answered> {
  return ask(on.api, { url, headers: token === undefined ? {} : { authorization: `Bearer ${token}` } })
}

export async function refused(on: Stage, token: string, reason: RegExp): Promise<void> {
  const { status, headers, body } = await get(on, token)
  expect({ status, type: body.type }).toEqual({ status: 401, type: 'urn:tidemark:problem:unauthorized' })
  expect(body.detail).toMatch(reason)
  expect(headers['www-authenticate']).toMatch(/^Bearer realm="tidemark", error="invalid_token", error_description="/)
}
