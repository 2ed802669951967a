import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { attributesFault, MAX_ATTRIBUTES_BYTES } from '../../../processor/contract/attributes.ts'
import type { JsonObject } from '../../../processor/contract/json.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { ask, documentOf } from '../conformance.ts'
import { Live } from '../live.ts'
import { MERGE_PATCH, remove, send, unknown, WAIT } from './writes.ts'

let live: Live
beforeAll(async () => {
  live = await Live.open()
})
afterAll(() => live[Symbol.asyncDispose]())

const device = (): Promise<string> => live.device()
const attributes = (id: string, query = '') => ask(live.api, `/v1/devices/${id}/attributes${query}`)
const POSITION = /^\d-\d+$/

describe('attributes', () => {
  it('are answered 304 without a body while the device is at the version that is known', async () => {
    const id = await device()
    await send(live.api, 'PUT', id, { site: 'k1' }, WAIT)
    const url = `/v1/devices/${id}/attributes`
    const { etag } = (await attributes(id)).headers as { etag: string }
    const known = await ask(live.api, { url, headers: { 'if-none-match': `"x", ${etag}` } })
    expect([known.status, known.headers.etag, known.text]).toEqual([304, etag, ''])
    expect(known.headers['tidemark-freshness']).toMatch(/^partition=/)
    expect(known.headers).not.toHaveProperty('content-type')
    const { paths } = await documentOf(live.api)
    const { responses, parameters } = paths['/v1/devices/{deviceId}/attributes']?.get ?? {}
    expect(responses).toHaveProperty('304')
    expect(parameters).toContainEqual(expect.objectContaining({ name: 'If-None-Match', in: 'header' }))
    await send(live.api, 'PUT', id, { site: 'k2' }, WAIT)
    const changed = await ask(live.api, { url, headers: { 'if-none-match': etag } })
    expect([changed.status, changed.body]).toEqual([200, { site: 'k2' }])
  })
})

describe('a write', () => {
  it('is taken by the log, and read from where it is', async () => {
    const id = await device()
    const { status, headers, body } = await send(live.api, 'PUT', id, { site: 'k1' })
    expect(status).toBe(202)
    expect(body).toEqual({ position: expect.stringMatching(POSITION) })
    expect(headers['tidemark-position']).toBe(body.position)
    expect(headers.location).toBe(`/v1/devices/${id}?atLeast=${body.position}`)
    const read = await ask(live.api, headers.location as string)
    expect(read.status).toBe(200)
    expect(read.body.attributes).toEqual({ site: 'k1' })
    expect(read.body.freshness.offset).toBeGreaterThan(Number(body.position.split('-')[1]))
    const alone = await attributes(id, `?atLeast=${body.position}`)
    expect(alone.body).toEqual({ site: 'k1' })
    expect(alone.headers.etag).toMatch(/^W\/"2-/)
    expect(alone.headers['tidemark-freshness']).toMatch(/^partition=\d, offset=\d+, lag=\d+, served-by=owner$/)
  })

  it('is answered with the status when the client waits', async () => {
    const id = await device()
    const put = await send(live.api, 'PUT', id, { site: 'k1', type: 'van' }, WAIT)
    expect(put.status).toBe(200)
    expect(put.body).toMatchObject({ deviceId: id, rev: 2, attributes: { site: 'k1', type: 'van' } })
    expect(put.headers).toMatchObject({ 'preference-applied': 'wait=10', etag: expect.stringMatching(/^W\/"2-/) })
    expect(put.headers['tidemark-position']).toMatch(POSITION)
    const patch = await send(live.api, 'PATCH', id, { site: null, tags: ['a'] }, WAIT)
    expect(patch.body).toMatchObject({ rev: 3, attributes: { type: 'van', tags: ['a'] } })
    expect(patch.body.attributes).not.toHaveProperty('site')
    const json = await send(
      live.api,
      'PATCH',
      id,
      { tags: null, type: null },
      { ...WAIT, 'content-type': 'application/json' },
    )
    expect(json.body.rev).toBe(4)
    expect(json.body).not.toHaveProperty('attributes')
    expect((await attributes(id)).body).toEqual({})
    const removed = await remove(live.api, id, WAIT)
    expect([removed.status, removed.headers['tidemark-position']]).toEqual([204, expect.stringMatching(POSITION)])
    const { paths } = await documentOf(live.api)
    const documented = paths['/v1/devices/{deviceId}']?.delete?.responses['204']
    expect(documented).toMatchObject({ headers: { 'Tidemark-Position': { schema: { type: 'string' } } } })
    expect((await attributes(id)).status).toBe(404)
  })

  it('is applied at the rev that it asks for only, and one of those that race wins', async () => {
    const id = await device()
    const first = await send(live.api, 'PUT', id, { n: 0 }, { 'if-match': '"1"' })
    expect(first.status).toBe(200)
    const racing = await Promise.all(
      Array.from({ length: 8 }, (_, n) => send(live.api, 'PATCH', id, { n: n + 1 }, { 'if-match': 'W/"2", "7"' })),
    )
    expect(racing.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, ...Array(7).fill(412)])
    const [lost] = racing.filter(({ status }) => status === 412)
    expect(lost?.body).toMatchObject({ title: 'Precondition failed', position: expect.stringMatching(POSITION) })
    expect(lost?.headers.etag).toMatch(/^W\/"3-/)
    const stale = await remove(live.api, id, { 'if-match': '"2"' })
    const detail = `device ${id} was at another version than If-Match asks for, and is at ${stale.headers.etag} by now`
    expect([stale.status, stale.body.detail]).toEqual([412, detail])
    expect((await send(live.api, 'PUT', id, { n: 9 }, { 'if-match': '*' })).body.rev).toBe(4)
    expect((await send(live.api, 'PUT', id, { n: 9 }, { 'if-match': '"none-of-ours"' })).status).toBe(412)
    expect((await remove(live.api, id, { 'if-match': '"4"' })).status).toBe(204)
  })

  it('asked for at the ETag of a device is not applied to what came after its deletion', async () => {
    const id = await device()
    const etag = (await ask(live.api, `/v1/devices/${id}`)).headers.etag as string
    expect((await attributes(id)).headers.etag).toBe(etag)
    await remove(live.api, id, { 'if-match': etag })
    await live.says(id, { t: 2 })
    expect((await send(live.api, 'PUT', id, {}, { 'if-match': '"1"' })).status).toBe(200)
    expect((await send(live.api, 'PUT', id, {}, { 'if-match': etag })).status).toBe(412)
    const anew = (await ask(live.api, `/v1/devices/${id}`)).headers.etag as string
    const odd = { a: {}, firstSeenAt: '漢' }
    const put = await send(live.api, 'PUT', id, odd, { 'if-match': `"none", ${anew}` })
    expect(put.body.attributes).toEqual(odd)
    expect(put.headers.etag).toBe(anew.replace('"1-', '"2-'))
    for (const rev of [3, 4]) {
      const then = { owner: { name: rev }, firstSeenAt: '2020-01-01T00:00:00.000Z' }
      const now = (await attributes(id)).headers.etag as string
      const again = await send(live.api, 'PUT', id, then, { 'if-match': now })
      expect([again.status, again.headers.etag]).toEqual([200, anew.replace('"1-', `"${rev}-`)])
    }
  })

  it('of a device that was never heard of is refused, and so is one after its deletion', async () => {
    for (const headers of [{}, WAIT, { 'if-match': '"1"' }, { 'if-match': '*' }]) {
      for (const { status, body } of [
        await send(live.api, 'PUT', 'nobody', { a: 1 }, headers),
        await remove(live.api, 'nobody', headers),
      ]) {
        expect([status, body.detail]).toEqual([404, unknown('nobody')])
      }
    }
    const id = await device()
    await remove(live.api, id, WAIT)
    expect((await send(live.api, 'PUT', id, { a: 1 })).status).toBe(404)
    await live.says(id, { t: 2 })
    expect((await send(live.api, 'PUT', id, { a: 1 }, WAIT)).body).toMatchObject({ rev: 2, counters: { messages: 1 } })
  })

  it('that leaves too much is refused', async () => {
    const id = await device()
    const half = { a: 'x'.repeat(MAX_ATTRIBUTES_BYTES / 2) }
    expect((await send(live.api, 'PUT', id, half, WAIT)).status).toBe(200)
    const { status, body } = await send(live.api, 'PATCH', id, { b: half.a }, WAIT)
    expect([status, body.title, body.detail]).toEqual([
      413,
      'Attributes too large',
      'the attributes would take more than 8192 bytes',
    ])
  })

  it('keeps any JSON object as it is', async () => {
    const id = await device()
    const json = fc.dictionary(fc.string({ minLength: 1, maxLength: 9 }), fc.jsonValue({ maxDepth: 4 }), {
      maxKeys: 5,
      noNullPrototype: true,
    })
    await fc.assert(
      fc.asyncProperty(json, async (value) => {
        const text = JSON.stringify(value)
        fc.pre(attributesFault(value as JsonObject) === undefined && Buffer.byteLength(text) < MAX_ATTRIBUTES_BYTES)
        const { status } = await send(live.api, 'PUT', id, text, WAIT)
        expect([status, JSON.stringify((await attributes(id)).body)]).toEqual([200, text])
      }),
      { numRuns: 40 },
    )
  })
})

describe('bad input', () => {
  const nested = (depth: number): string => (depth === 0 ? '1' : `{"a":${nested(depth - 1)}}`)

  it.each<[string, string | Buffer, string]>([
    ['no body', '', 'body is empty'],
    ['cut JSON', '{"a":', 'body is not valid JSON'],
    ['bytes that are no UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), 'body is not UTF-8'],
    ['an array', '[]', 'body must be object'],
    ['null', 'null', 'body must be object'],
    ['a text', '"a"', 'body must be object'],
    ['an infinite number', '{"a":{"b":[1e999]}}', 'a.b[0] is a number too large'],
    ['17 objects', nested(17), `${Array(16).fill('a').join('.')} is nested deeper than 16`],
    ['a prototype', '{"a":{"__proto__":{}}}', 'a.__proto__ is no name'],
    ['an empty name', '{"":1}', 'body is no name'],
    ['a name with a quote', '{"a\\"":1}', 'a" is no name that an attribute may have: it is empty'],
    ['a name with a backslash', '{"a":{"\\\\":1}}', 'body has a name with a backslash'],
    ['a name with a line break', '{"a\\n":1}', 'a\n is no name'],
  ])('is refused as a body: %s', async (_, body, detail) => {
    const id = await device()
    for (const method of ['PUT', 'PATCH'] as const) {
      const answer = await send(live.api, method, id, body)
      expect(answer.status).toBe(400)
      expect(answer.body.detail).toContain(detail)
      expect(answer.body.errors).toHaveLength(1)
    }
  })

  it('is refused for its size or its type', async () => {
    const id = await device()
    const large = JSON.stringify({ a: 'x'.repeat(MAX_ATTRIBUTES_BYTES) })
    expect((await send(live.api, 'PUT', id, large)).body).toMatchObject({
      title: 'Attributes too large',
      detail: `the body has ${large.length} bytes of JSON, and 8192 are allowed`,
    })
    expect((await send(live.api, 'PUT', id, `{}${' '.repeat(40_000)}`)).body).toMatchObject({
      status: 413,
      title: 'Body too large',
    })
    for (const type of ['text/plain', 'application/xml', MERGE_PATCH]) {
      expect((await send(live.api, 'PUT', id, '{}', { 'content-type': type })).status).toBe(415)
    }
    const { status, body } = await send(live.api, 'PATCH', id, '{}', { 'content-type': 'application/json-patch+json' })
    expect([status, body.errors]).toEqual([
      415,
      [{ field: 'content-type', message: 'must be application/merge-patch+json or application/json' }],
    ])
  })

  it.each([
    ['42', 'must be * or a list of ETags'],
    ['"4" "5"', 'must be * or a list of ETags'],
    ['*, "4"', 'must be * or a list of ETags'],
    [',', 'names no ETag'],
    [Array.from({ length: 17 }, (_, i) => `"${i}"`).join(), 'may name up to 16 ETags'],
  ])('is refused as If-Match: %s', async (value, message) => {
    const { status, body } = await remove(live.api, await device(), { 'if-match': value })
    expect([status, body.errors]).toEqual([400, [{ field: 'if-match', message }]])
  })

  it('is passed over as Prefer, and a long wait is cut', async () => {
    const id = await device()
    for (const prefer of ['wait', 'wait=x', 'wait=-1', 'respond-async', 'await=3']) {
      const { status, headers } = await send(live.api, 'PUT', id, {}, { prefer })
      expect([status, headers['preference-applied']]).toEqual([202, undefined])
    }
    for (const prefer of ['wait=86400', 'respond-async, Wait = "10"; x=y', 'wait=10, wait=1']) {
      expect((await send(live.api, 'PUT', id, {}, { prefer })).headers['preference-applied']).toBe('wait=10')
    }
  })

  it('is refused as a position', async () => {
    const id = await device()
    const here = partitionOf(id, 4)
    const other = (here + 1) % 4
    for (const path of [`/v1/devices/${id}`, `/v1/devices/${id}/attributes`]) {
      for (const text of ['', '3', 'x-1', '1-', '01-2', '1-99999999999999999']) {
        const { status, body } = await ask(live.api, `${path}?atLeast=${text}`)
        expect([status, body.errors[0]?.field]).toEqual([400, 'atLeast'])
      }
      const { status, body } = await ask(live.api, `${path}?atLeast=${other}-5`)
      expect([status, body.detail]).toEqual([
        400,
        `atLeast is a position of partition ${other}, and device ${id} lives in partition ${here}`,
      ])
    }
  })
})
