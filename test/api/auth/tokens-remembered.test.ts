import { createHmac } from 'node:crypto'
import { expect, it } from 'vitest'
import { Tokens } from '../../../api/auth/tokens.ts'
import { silent } from '../stage.ts'

const SECRET = 'not-so-secret-but-32-bytes-long!'
const START = Date.parse('2026-11-24T10:00:00Z')
/** Tokens that are remembered. */
const REMEMBERED = 10_000
/** Verified at once; more than 256 would be refused. */
const TOGETHER = 100

function token(n: number): string {
  const claims = { sub: String(n), iss: 'tidemark', aud: 'tidemark', exp: START / 1000 + 3600 }
  const head = [{ alg: 'HS256' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
  return `${head.join('.')}.${createHmac('sha256', SECRET).update(head.join('.')).digest('base64url')}`
}

it('remembers so many tokens, and forgets the one it verified first for one more', async () => {
  const settings = {
    keys: { secret: SECRET },
    algorithms: ['HS256'],
    issuer: 'tidemark',
    audience: 'tidemark',
    maxLifetimeMs: 7_200_000,
  }
  const tokens = await Tokens.open({ ...settings, logger: silent, now: () => START, steady: () => 0 })
  const verify = (n: number) => tokens.callerOf(`Bearer ${token(n)}`)
  // Of what is remembered the answer is at once.
  const isKnown = (n: number) => !(verify(n) instanceof Promise)
  // Of tokens that are verified together any may be done first.
  await verify(0)
  for (let n = 0; n < REMEMBERED; n += TOGETHER) {
    await Promise.all(Array.from({ length: TOGETHER }, async (_, i) => verify(n + i)))
  }
  expect([isKnown(0), isKnown(REMEMBERED - 1)]).toEqual([true, true])
  await verify(REMEMBERED)
  expect([isKnown(0), isKnown(REMEMBERED - 1), isKnown(REMEMBERED)]).toEqual([false, true, true])
})
