import { assert, dictionary, jsonValue, property, string } from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { projectionOf } from '../../api/devices/projection.ts'
import { etagOf } from '../../api/http/etag.ts'
import { spliceStatus } from '../../api/http/splice.ts'
import { encodeCursor } from '../../api/search/cursor.ts'
import type { JsonObject } from '../../processor/contract/json.ts'
import { type Order, parseOrder } from '../../processor/contract/order.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import { parseQuery } from '../../processor/contract/search-parser.ts'
import { type Status, statusText } from '../../processor/contract/status.ts'
import { ask, type Body } from './conformance.ts'
import { type Stage, stage } from './stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})
afterEach(() => on.api.close())

const post = (payload: string, type = 'application/json', url = '/v1/devices/batch-get') =>
  ask(on.api, { method: 'POST', url, payload, headers: { 'content-type': type } })
const batch = (deviceIds: unknown) => post(JSON.stringify({ deviceIds }))

describe('GET /v1/devices/{deviceId}', () => {
  it('answers the status and how fresh it is', async () => {
    on.fleet.put('truck-17')
    const { status, headers, body } = await ask(on.api, '/v1/devices/truck-17')
    expect(status).toBe(200)
    expect(headers['content-type']).toBe('application/json; charset=utf-8')
    expect(body).toMatchObject({ deviceId: 'truck-17', rev: 1, reported: { t: { value: 21.5 } } })
    expect(body.freshness).toEqual({ partition: partitionOf('truck-17', 4), offset: 7, lag: 1, servedBy: 'owner' })
  })

  it('says 404 and how fresh that is for a device that is not known', async () => {
    const { status, headers, body } = await ask(on.api, '/v1/devices/truck-18')
    expect(status).toBe(404)
    expect(headers['content-type']).toBe('application/problem+json')
    expect(body).toMatchObject({
      type: 'urn:tidemark:problem:unknown-device',
      status: 404,
      instance: '/v1/devices/truck-18',
      freshness: { servedBy: 'owner' },
    })
  })

  it.each([':', '.a', `a:b.c_d-e`, 'x'.repeat(128), 'batch-get', '%74ruck'])('reads the id %s', async (id) => {
    on.fleet.put(decodeURIComponent(id))
    expect((await ask(on.api, `/v1/devices/${id}`)).body.deviceId).toBe(decodeURIComponent(id))
  })

  it.each(['a%20b', 'a%2Fb', 'a%00b', '%C3%A9', 'x'.repeat(129), 'x'.repeat(5000), '', '*'])(
    'refuses the id %j with 400 that names deviceId',
    async (id) => {
      const { status, headers, body } = await ask(on.api, `/v1/devices/${id}`)
      expect(status).toBe(400)
      expect(headers['content-type']).toBe('application/problem+json')
      expect(body.errors[0]?.field).toBe('deviceId')
    },
  )

  it('refuses a malformed percent-encoding and an unknown query parameter', async () => {
    expect((await ask(on.api, '/v1/devices/%zz')).body).toMatchObject({ status: 400, errors: [{ field: 'path' }] })
    expect((await ask(on.api, '/v1/devices/a?b=1')).body).toMatchObject({ status: 400, errors: [{ field: 'b' }] })
  })

  it('answers 503 with Retry-After when no copy can, and from a standby when one can', async () => {
    on.fleet.put('truck-17')
    const partition = partitionOf('truck-17', 4)
    on.fleet.assign(partition, undefined)
    const refused = await ask(on.api, '/v1/devices/truck-17')
    expect(refused).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(refused.body.type).toBe('urn:tidemark:problem:partition-unavailable')
    on.fleet.assign(partition, undefined, 'b')
    expect((await ask(on.api, '/v1/devices/truck-17')).body.freshness.servedBy).toBe('standby')
  })

  it('answers HEAD as GET, without the body', async () => {
    on.fleet.put('truck-17')
    const response = await on.api.inject({ method: 'HEAD', url: '/v1/devices/truck-17' })
    const get = await on.api.inject('/v1/devices/truck-17')
    expect(response).toMatchObject({ statusCode: 200, body: '' })
    expect(response.headers['content-length']).toBe(get.headers['content-length'])
  })
})

describe('the answer made of stored bytes', () => {
  it('is the status with the members added, whatever text is in it', () => {
    assert(
      property(dictionary(string({ unit: 'binary' }), jsonValue()), (reported) => {
        const status = { deviceId: 'a', reported }
        const page = Buffer.concat([Buffer.from('##'), Buffer.from(JSON.stringify(status))])
        const bytes = new Uint8Array(page.buffer, page.byteOffset + 2, page.length - 2)
        expect(JSON.parse(spliceStatus(bytes, '"freshness":{"lag":0}'))).toEqual(
          JSON.parse(JSON.stringify({ ...status, freshness: { lag: 0 } })),
        )
      }),
    )
  })

  it('keeps text outside ASCII, in every kind of answer', async () => {
    const value = 'Zürich 東京 🚚 \u0000 "quoted" \\ \ud800'
    on.fleet.put('truck-17', { 'näme"\n': { value, at: '2026-11-24T10:00:00.000Z' } })
    const bodies = [
      (await ask(on.api, '/v1/devices/truck-17')).body,
      (await ask(on.api, '/v1/devices')).body.items[0] as Body,
      (await batch(['truck-17'])).body.results[0] as Body,
    ]
    for (const body of bodies) expect(body.reported['näme"\n']?.value).toBe(value)
    const response = await on.api.inject('/v1/devices/truck-17')
    expect(response.headers['content-length']).toBe(String(response.rawPayload.length))
  })
})

const ALL = parseQuery('')
const BY_ID = parseOrder('deviceId') as Order
const TRUCK = encodeCursor({ key: [1, 'truck'], deviceId: 'truck' }, ALL, BY_ID)

describe('GET /v1/devices', () => {
  it('pages through 250 devices in order, each once, with others coming to be between', async () => {
    const ids = Array.from({ length: 250 }, (_, i) => `truck-${String(i).padStart(3, '0')}`)
    for (const id of ids) on.fleet.put(id)
    const seen: string[] = []
    let url: string | undefined = '/v1/devices?limit=40'
    for (let page = 0; url !== undefined; page++) {
      const { headers, body } = await ask(on.api, url)
      seen.push(...body.items.map((item) => item.deviceId))
      url = headers.link?.match(/^<(.*)>; rel="next"$/)?.[1]
      expect(url).toBe(body.nextCursor && `/v1/devices?limit=40&cursor=${body.nextCursor}`)
      on.fleet.put(`a-before-${page}`)
      on.fleet.put(`truck-${String(page * 40 + 45).padStart(3, '0')}x`)
    }
    expect(seen.filter((id) => !id.endsWith('x'))).toEqual(ids)
    expect(seen).toEqual(seen.toSorted())
    expect(new Set(seen).size).toBe(seen.length)
    expect(seen).toContain('truck-045x')
  })

  it('gives 100 devices when no limit is given, up to 1,000 when asked', async () => {
    for (let i = 0; i < 1010; i++) on.fleet.put(`d${i}`)
    expect((await ask(on.api, '/v1/devices')).body.items).toHaveLength(100)
    const { headers, body } = await ask(on.api, '/v1/devices?limit=1000')
    expect(body.items).toHaveLength(1000)
    const rest = await ask(on.api, headers.link?.match(/<(.*)>/)?.[1] as string)
    expect(rest.body.items).toHaveLength(10)
    expect(rest.body).not.toHaveProperty('nextCursor')
    expect(rest.headers).not.toHaveProperty('link')
  })

  it('answers an empty page when there are no devices', async () => {
    expect((await ask(on.api, '/v1/devices')).body).toEqual({ items: [] })
  })

  it.each(['0', '1001', '-1', '1.5', '1e2', '0x10', 'ten', '', '9'.repeat(40)])(
    'refuses limit=%s with 400 that names limit',
    async (limit) => {
      const { status, body } = await ask(on.api, `/v1/devices?limit=${limit}`)
      expect(status).toBe(400)
      expect(body.errors).toMatchObject([{ field: 'limit' }])
    },
  )

  it.each(['', 'x', '%00', '%zz', 'MTo', 'a'.repeat(200), TRUCK.slice(1), `${TRUCK}=`])(
    'refuses cursor=%s with 400 that names cursor',
    async (cursor) => {
      const { status, body } = await ask(on.api, `/v1/devices?cursor=${cursor}`)
      expect(status).toBe(400)
      expect(body.errors[0]?.field).toBe('cursor')
    },
  )

  it('names every field to blame, unknown ones too', async () => {
    const { body } = await ask(on.api, '/v1/devices?limit=0&cursor=%20&order=up&__proto__=1')
    const fields = body.errors.map((error) => error.field)
    expect(new Set(fields)).toEqual(new Set(['limit', 'cursor', 'order', '__proto__']))
  })

  it('answers 503 when a partition cannot be read', async () => {
    on.fleet.assign(2, undefined)
    expect(await ask(on.api, '/v1/devices')).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
  })

  it('ends a page early when its statuses are large, and goes on', async () => {
    await using small = await stage({ limits: { maxAnswerBytes: 1000 } }).then(disposable)
    for (let i = 0; i < 9; i++)
      small.fleet.put(`d${i}`, { t: { value: 'x'.repeat(300), at: '2026-11-24T10:00:00.000Z' } })
    const seen: string[] = []
    let cursor = ''
    do {
      const { body } = await ask(small.api, `/v1/devices${cursor}`)
      expect(body.items.length).toBeLessThan(3)
      seen.push(...body.items.map((item) => item.deviceId))
      cursor = body.nextCursor === undefined ? '' : `?cursor=${body.nextCursor}`
    } while (cursor !== '')
    expect(seen).toEqual(Array.from({ length: 9 }, (_, i) => `d${i}`))
  })
})

describe('POST /v1/devices/batch-get', () => {
  it('answers each id in order: known, unknown, repeated', async () => {
    on.fleet.put('a')
    const { status, body } = await batch(['b', 'a', 'a'])
    expect(status).toBe(200)
    expect(body.results).toMatchObject([
      { deviceId: 'b', found: false, freshness: { servedBy: 'owner' } },
      { deviceId: 'a', found: true, rev: 1, freshness: { servedBy: 'owner' } },
      { deviceId: 'a', found: true },
    ])
  })

  it('takes 1,000 ids of 128 characters', async () => {
    const ids = Array.from({ length: 1000 }, (_, i) => String(i).padStart(128, 'x'))
    for (const id of ids) on.fleet.put(id)
    const { body } = await batch(ids)
    expect(body.results.map((result) => result.deviceId)).toEqual(ids)
  })

  it('puts an error in the place of what cannot be had now', async () => {
    const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']
    for (const id of ids) on.fleet.put(id)
    on.fleet.assign(1, undefined)
    const { status, body } = await batch(ids)
    expect(status).toBe(200)
    for (const [i, id] of ids.entries()) {
      const here = partitionOf(id, 4) === 1
      expect(body.results[i]).toMatchObject(
        here
          ? { deviceId: id, error: { status: 503, type: 'urn:tidemark:problem:partition-unavailable' } }
          : { found: true },
      )
    }
  })

  it.each([
    [[], 'deviceIds'],
    [Array.from({ length: 1001 }, () => 'a'), 'deviceIds'],
    [['a', 'b c'], 'deviceIds[1]'],
    [['a', ''], 'deviceIds[1]'],
    [['a', 5], 'deviceIds[1]'],
    [['a', null], 'deviceIds[1]'],
    ['a', 'deviceIds'],
    [{}, 'deviceIds'],
    [undefined, 'deviceIds'],
  ])('refuses the ids of case %# with 400 that names the place', async (deviceIds, field) => {
    const { status, body } = await batch(deviceIds)
    expect(status).toBe(400)
    expect(body.errors[0]?.field).toBe(field)
  })

  it.each([
    ['{', 'body'],
    ['', 'body'],
    ['null', 'body'],
    ['[]', 'body'],
    ['"deviceIds"', 'body'],
    ['{"__proto__":{"deviceIds":["a"]}}', 'body'],
    ['{"deviceIds":["a"],"x":1}', 'x'],
  ])('refuses the body %s with 400 that names %s', async (payload, field) => {
    const { status, body } = await post(payload)
    expect(status).toBe(400)
    expect(body.errors[0]?.field).toBe(field)
  })

  it('refuses another content type with 415, a body over the limit with 413, a query with 400', async () => {
    for (const type of ['text/plain', 'application/xml', 'application/jsonp', ';;', 'multipart/form-data']) {
      expect((await post('{"deviceIds":["a"]}', type)).status, type).toBe(415)
    }
    expect((await post('{"deviceIds":["a"]}', 'application/json; charset=utf-8')).status).toBe(200)
    expect((await post(`{"deviceIds":["${'a'.repeat(300_000)}"]}`)).status).toBe(413)
    const query = await post('{"deviceIds":["a"]}', 'application/json', '/v1/devices/batch-get?limit=1')
    expect(query.body.errors[0]?.field).toBe('limit')
  })

  it('fills an answer up to its bound and says so for the rest', async () => {
    await using small = await stage({ limits: { maxAnswerBytes: 1000 } }).then(disposable)
    small.fleet.put('a')
    const deviceIds = Array.from({ length: 500 }, () => 'a')
    const { body } = await ask(small.api, { method: 'POST', url: '/v1/devices/batch-get', payload: { deviceIds } })
    expect(body.results).toHaveLength(500)
    expect(body.results[0]).toMatchObject({ found: true })
    expect(body.results[499]).toMatchObject({ deviceId: 'a', error: { type: 'urn:tidemark:problem:answer-too-large' } })
  })
})

function disposable(held: Stage): Stage & AsyncDisposable {
  return { ...held, [Symbol.asyncDispose]: () => held.api.close() }
}

const get = (match?: string) =>
  ask(on.api, { url: '/v1/devices/a', headers: match === undefined ? {} : { 'if-none-match': match } })

describe('the entity tag', () => {
  const AT = '2026-11-24T10:00:00.000Z'

  it('is weak, of rev and of the life of the device', async () => {
    on.fleet.put('a')
    expect((await get()).headers.etag).toBe(`W/"1-${AT}"`)
  })

  it('is found whatever devices and people say', () => {
    const status = (reported: Status['reported'], attributes: JsonObject): Status => ({
      deviceId: 'a',
      rev: 42,
      reported,
      connectivity: { state: 'online', since: AT, reason: 'connected', session: 1 },
      firstSeenAt: AT,
      lastSeenAt: AT,
      counters: { messages: 1, late: 0, duplicates: 0, skewed: 0 },
      sequence: { seen: [[1, 2]], session: 1, at: AT },
      attributes,
    })
    const then = { x: {}, firstSeenAt: '2020-01-01T00:00:00.000Z' }
    const decoy = [{ rev: 7, x: {}, firstSeenAt: 'then' }, then, '","rev":7,', '},"firstSeenAt":"then"']
    const whole = { connectivity: { session: 1 }, ...then, lastSeenAt: AT, counters: { messages: 1 } }
    const texts = [
      statusText(
        status({ rev: { value: decoy, at: AT }, '","rev":7': { value: 1, at: AT } }, { rev: 7, firstSeenAt: 'then' }),
      ),
      statusText(status({}, {})),
      statusText(status({}, { owner: { name: 'x' }, firstSeenAt: '2020-01-01T00:00:00.000Z' })),
      statusText(status({ a: { value: [then], at: AT } }, { a: then, ...whole })),
      statusText(status({ a: { value: [whole], at: AT } }, {})),
    ]
    for (const text of texts) expect(etagOf(text.slice(0, -1))).toBe(`W/"42-${AT}"`)
  })

  it('is answered 304 without a body while it is the same, by weak comparison', async () => {
    on.fleet.put('a')
    const etag = `W/"1-${AT}"`
    for (const match of [etag, etag.slice(2), '*', ` "x", ${etag}`, `"a,b" , W/"c",${etag}`]) {
      const { status, headers, text } = await get(match)
      expect([status, headers.etag, text, headers['cache-control']], match).toEqual([304, etag, '', 'no-cache'])
      expect(headers).not.toHaveProperty('content-type')
    }
    for (const match of ['"1"', 'W/"2-x"', '', 'W/"1-', `"${AT}"`, '1', '**', '"*"']) {
      expect((await get(match)).status, match).toBe(200)
    }
    const head = { method: 'HEAD', url: '/v1/devices/a', headers: { 'if-none-match': etag } } as const
    expect((await on.api.inject(head)).statusCode).toBe(304)
    expect((await ask(on.api, { url: '/v1/devices/b', headers: { 'if-none-match': '*' } })).status).toBe(404)
  })
})

describe('fields', () => {
  const at = '2026-11-24T10:00:00.000Z'
  const fresh = { partition: expect.any(Number), offset: 7, lag: 1, servedBy: 'owner' }
  const reported = {
    t: { value: 21.5, at },
    'pos.lat': { value: 52.1, at },
    'a,b': { value: 1, at },
    'x.at': { value: 7, at },
    x: { value: 8, at },
  }

  it.each([
    ['rev', { rev: 1 }],
    ['deviceId', {}],
    ['reported.t', { reported: { t: { value: 21.5 } } }],
    ['reported.t.at', { reported: { t: { at } } }],
    ['reported.t,reported.t.at,reported.pos.lat', { reported: { t: { value: 21.5, at }, 'pos.lat': { value: 52.1 } } }],
    ['reported.x.at', { reported: { 'x.at': { value: 7 } } }],
    ['reported.a\\,b', { reported: { 'a,b': { value: 1 } } }],
    ['reported.none,rev', { rev: 1 }],
    ['reported', { reported }],
    ['reported.t,reported,reported.x', { reported }],
    ['connectivity.state,counters.messages', { connectivity: { state: 'online' }, counters: { messages: 1 } }],
    ['connectivity', { connectivity: { state: 'online', since: at, reason: 'connected', session: 1 } }],
    ['attributes.site', {}],
  ])('%s are at their places, beside the id and the freshness', async (fields, expected) => {
    on.fleet.put('a', reported)
    const { status, headers, body } = await ask(on.api, `/v1/devices/a?fields=${encodeURIComponent(fields)}`)
    expect([status, headers.etag]).toEqual([200, `W/"1-${at}"`])
    expect(body).toEqual({ deviceId: 'a', ...expected, freshness: fresh })
    const results = await post(
      '{"deviceIds":["a","b"]}',
      undefined,
      `/v1/devices/batch-get?fields=${encodeURIComponent(fields)}`,
    )
    expect(results.body.results).toEqual([
      { deviceId: 'a', ...expected, freshness: fresh, found: true },
      { deviceId: 'b', found: false, freshness: fresh },
    ])
  })

  it('are of attributes at any depth, whatever their names', () => {
    const status = {
      deviceId: 'a',
      reported: JSON.parse('{"__proto__":{"value":1,"at":"then"}}'),
      attributes: JSON.parse('{"site":"k1","a":{"b.c":2,"b":{"c":1}},"a.b":{"c":3},"__proto__":{"x":1},"n":null}'),
    }
    const bytes = Buffer.from(JSON.stringify(status))
    const shown = (fields: string) => JSON.parse(`${projectionOf(fields)(bytes)}}`)
    expect(shown('attributes.site,attributes.n')).toEqual({ deviceId: 'a', attributes: { site: 'k1', n: null } })
    expect(shown('attributes.a.b.c')).toEqual({ deviceId: 'a', attributes: { a: { 'b.c': 2 } } })
    expect(shown('attributes.a.b')).toEqual({ deviceId: 'a', attributes: { 'a.b': { c: 3 } } })
    expect(shown('attributes.a.none,attributes.site.x,attributes.toString')).toEqual({ deviceId: 'a' })
    expect(JSON.stringify(shown('reported.__proto__'))).toBe('{"deviceId":"a","reported":{"__proto__":{"value":1}}}')
    expect(JSON.stringify(shown('attributes.__proto__.x'))).toBe('{"deviceId":"a","attributes":{"__proto__":{"x":1}}}')
  })

  it.each(['', 'x', 'rev,', ',', 'rev,,rev', 'reported.', 'connectivity.stat', 'Rev', ' rev', 'toString', '__proto__'])(
    '%j are refused by name',
    async (fields) => {
      const { status, body } = await ask(on.api, `/v1/devices/a?fields=${encodeURIComponent(fields)}`)
      expect([status, body.errors[0]?.field]).toEqual([400, 'fields'])
    },
  )

  it('that are too many are refused', async () => {
    const fields = Array.from({ length: 65 }, (_, i) => `reported.m${i}`).join()
    expect((await ask(on.api, `/v1/devices/a?fields=${fields}`)).body.errors[0]?.field).toBe('fields')
    expect((await ask(on.api, `/v1/devices/a?fields=${fields.replace(',reported.m64', '')}`)).status).toBe(404)
  })
})
