import { METHODS } from 'node:http'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Tokens } from '../../../api/auth/tokens.ts'
import { ProblemError } from '../../../api/http/problem.ts'
import { ask } from '../conformance.ts'
import { type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})

describe('the methods that a path allows', () => {
  it.each([
    ['in absolute form', 'http://x:8080/v1/devices?limit=1', 'GET, HEAD'],
    ['in absolute form, without a path', 'HTTP://x?y', 'GET, HEAD'],
    ['with characters encoded that need not be', '/v1/%64evices/a%3Ab', 'DELETE, GET, HEAD'],
    ['of the docs, with a slash at its end', '/docs/', 'GET, HEAD'],
  ])('are told of one %s', async (_, url, allow) => {
    const { status, headers } = await ask(on.api, { method: 'POST', url })
    expect([status, headers.allow]).toEqual([405, allow])
  })

  it.each(METHODS)('are not asked for where it cannot be read: %s', async (method) => {
    const { statusCode } = await on.api.inject({ method: method as 'GET', url: '/v1/devices/%C3%28' })
    expect(statusCode).toBe(400)
  })
})

describe('a parameter that is given more than once', () => {
  it.each([
    ['limit', '/v1/devices?limit=1&limit=2'],
    ['q', '/v1/devices/count?q=rev:1&q=rev:2'],
    ['reason', '/v1/dead-letters?reason=not-json&reason=not-json'],
  ])('is refused as such: %s', async (field, url) => {
    const { status, body } = await ask(on.api, url)
    expect([status, body.errors]).toEqual([400, [{ field, message: 'must be given once' }]])
  })

  it('is not known, where it would not be if it were given once', async () => {
    const { body } = await ask(on.api, '/v1/devices?x=1&x=2')
    expect(body.errors).toEqual([{ field: 'x', message: 'is not known' }])
  })
})

describe('a query that is not UTF-8', () => {
  it.each([
    ['q', 'q=attributes.site:M%FCnchen'],
    ['q', 'limit=1&q=100%'],
    ['fields', 'fields=reported.%zz&q=rev:%31'],
    ['q', 'q=%ED%A0%80'],
    ['query', '%ff=1'],
  ])('is refused, and named: %s of %s', async (field, query) => {
    const { status, body } = await ask(on.api, `/v1/devices?${query}`)
    expect([status, body.errors?.[0]?.field]).toEqual([400, field])
    expect((await ask(on.api, `/livez?${query}`)).status).toBe(200)
    expect((await ask(on.api, `/nowhere?${query}`)).status).toBe(404)
  })

  it('counts as a request, as any other that is refused', async () => {
    const { api } = await stage({ ratePerMinute: 1 })
    for (const status of [400, 429]) expect((await ask(api, '/v1/devices?q=%ff')).status).toBe(status)
  })

  it('is looked at once it is known who asks', async () => {
    const { api } = await stage({
      tokens: {
        callerOf: () => {
          throw new ProblemError('unauthorized', 'no token', {
            errors: [{ field: 'authorization', message: 'no token' }],
          })
        },
      } as unknown as Tokens,
    })
    expect((await ask(api, '/v1/devices?q=%ff')).status).toBe(401)
  })

  it('is none where percent signs are encoded, or what is encoded is UTF-8', async () => {
    for (const query of ['q=attributes.site:100%25', 'q=attributes.site:M%C3%BCnchen', 'q=%F0%9F%98%80']) {
      expect((await ask(on.api, `/v1/devices?${query}`)).status, query).toBe(200)
    }
  })
})
