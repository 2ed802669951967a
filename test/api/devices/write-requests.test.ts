import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask } from '../conformance.ts'
import { Live } from '../live.ts'

let live: Live
beforeAll(async () => {
  live = await Live.open()
})
afterAll(() => live[Symbol.asyncDispose]())

const device = (): Promise<string> => live.device()
const WRITES = ['PUT', 'PATCH', 'DELETE'] as const

function write(method: (typeof WRITES)[number], id: string, headers: Record<string, string>) {
  if (method === 'DELETE') return ask(live.api, { url: `/v1/devices/${id}`, method, headers })
  const url = `/v1/devices/${id}/attributes`
  return ask(live.api, { url, method, headers: { 'content-type': 'application/json', ...headers }, payload: '{"n":1}' })
}

describe('If-None-Match', () => {
  it.each(WRITES)('is not ignored by %s', async (method) => {
    const id = await device()
    const before = await ask(live.api, `/v1/devices/${id}`)
    const { etag } = before.headers as { etag: string }
    for (const also of [{}, { 'if-match': etag }, { prefer: 'wait=10' }]) {
      const refused = await write(method, id, { 'if-none-match': '*', ...also })
      expect([refused.status, refused.headers.etag]).toEqual([412, etag])
      expect(refused.body).toMatchObject({ title: 'Precondition failed', detail: `device ${id} is there, at ${etag}` })
    }
    for (const tags of [etag, '"other"', '']) {
      const refused = await write(method, id, { 'if-none-match': tags })
      const errors = [{ field: 'if-none-match', message: 'must be * for a write; If-Match takes ETags' }]
      expect([refused.status, refused.body.errors]).toEqual([400, errors])
    }
    const unknown = await write(method, 'nobody', { 'if-none-match': '*' })
    expect([unknown.status, unknown.body.title]).toEqual([404, 'Unknown device'])
    // One that is written afterwards comes to the rev after the one before all of these.
    const after = await write('PUT', id, { prefer: 'wait=10' })
    expect(after.body.rev).toBe(before.body.rev + 1)
  })
})

describe('a deletion', () => {
  it.each([
    ['JSON without a length', { 'content-type': 'application/json' }],
    ['JSON of no bytes', { 'content-type': 'application/json', 'content-length': '0' }],
    ['a form of no bytes', { 'content-type': 'application/x-www-form-urlencoded', 'content-length': '0' }],
    ['nothing', {}],
  ])('takes an empty body for none: %s', async (_, headers) => {
    const id = await device()
    const { status } = await write('DELETE', id, { prefer: 'wait=10', ...(headers as Record<string, string>) })
    expect(status).toBe(204)
    expect((await ask(live.api, `/v1/devices/${id}`)).status).toBe(404)
  })

  it.each([
    ['application/json', '{', 400],
    ['application/x-www-form-urlencoded', 'a=b', 415],
  ])('is refused with a body that is none: %s', async (type, payload, status) => {
    const id = await device()
    const url = `/v1/devices/${id}`
    const refused = await ask(live.api, { url, method: 'DELETE', headers: { 'content-type': type }, payload })
    expect(refused.status).toBe(status)
    expect((await ask(live.api, url)).status).toBe(200)
  })
})

describe('another media type', () => {
  it('is refused by PATCH, which tells those it takes', async () => {
    for (const type of ['text/plain', 'application/json-patch+json']) {
      const { status, headers } = await write('PATCH', await device(), { 'content-type': type })
      expect([status, headers['accept-patch']]).toEqual([415, 'application/merge-patch+json, application/json'])
    }
  })
})
