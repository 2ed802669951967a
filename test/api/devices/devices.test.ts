import { assert, dictionary, jsonValue, property, string } from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { spliceStatus } from '../../../api/http/answer-text.ts'
import { encodeCursor } from '../../../api/search/fleet-search.ts'
import { type Order, parseOrder } from '../../../processor/contract/order.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { sliceOf } from '../../../processor/contract/query.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { ask, type Body } from '../conformance.ts'
import { type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})

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
        expect(JSON.parse(spliceStatus(sliceOf(bytes), '"freshness":{"lag":0}'))).toEqual(
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
    const small = await stage({ limits: { maxAnswerBytes: 1000 } })
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
    const small = await stage({ limits: { maxAnswerBytes: 1000 } })
    small.fleet.put('a')
    const deviceIds = Array.from({ length: 500 }, () => 'a')
    const { body } = await ask(small.api, { method: 'POST', url: '/v1/devices/batch-get', payload: { deviceIds } })
    expect(body.results).toHaveLength(500)
    expect(body.results[0]).toMatchObject({ found: true })
    expect(body.results[499]).toMatchObject({ deviceId: 'a', error: { type: 'urn:tidemark:problem:answer-too-large' } })
  })
})
