import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { beforeEach, describe, expect, it } from 'vitest'
import { instanceOf } from '../../api/http/problem.ts'
import type { Answer, StatusReader } from '../../processor/contract/query.ts'
import { ask, documentOf, validatorOf } from './conformance.ts'
import { type Stage, stage } from './stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})

describe('GET /v1/partitions', () => {
  it('tells of the owner and the standbys of each, and of the totals', async () => {
    on.fleet.put('truck-17')
    on.fleet.assign(0, 'a', 'b')
    on.fleet.assign(3, undefined)
    const { status, body } = await ask(on.api, '/v1/partitions')
    expect(status).toBe(200)
    const copy = { state: 'running', offset: 7, changelogOffset: 5, lag: 1, devices: expect.any(Number) }
    expect(body.partitions[0]).toEqual({
      partition: 0,
      owner: { instance: 'a', ...copy },
      standbys: [{ instance: 'b', ...copy }],
    })
    expect(body.partitions[3]).toEqual({ partition: 3, owner: null, standbys: [] })
    expect(body.totals).toEqual({ partitions: 4, owned: 3, lag: 3, devices: null })
    on.fleet.assign(3, 'b')
    expect((await ask(on.api, '/v1/partitions')).body.totals).toEqual({ partitions: 4, owned: 4, lag: 4, devices: 1 })
    const member = on.fleet.member('b')
    const copies = await member.copies()
    member.copies = async () => copies.map((held) => ({ ...held, lag: undefined }))
    const unknown = (await ask(on.api, '/v1/partitions')).body
    expect(unknown.partitions[3]).toMatchObject({ owner: { lag: null } })
    expect(unknown.totals).toMatchObject({ owned: 4, lag: null })
  })

  it('refuses a query parameter', async () => {
    expect((await ask(on.api, '/v1/partitions?x=1')).body).toMatchObject({ status: 400, errors: [{ field: 'x' }] })
  })
})

describe('health', () => {
  it('is alive, and ready while no check has a problem', async () => {
    expect((await ask(on.api, '/livez')).body).toEqual({ status: 'alive' })
    expect((await ask(on.api, '/readyz')).body).toEqual({ status: 'ready' })
    on.problems.push('the disk is full', 'partition 3 has no owner')
    const { status, headers, body } = await ask(on.api, '/readyz')
    expect(status).toBe(503)
    expect(headers['content-type']).toBe('application/problem+json')
    expect(body.detail).toBe('the disk is full; partition 3 has no owner')
    expect(body.errors.map((error) => error.message)).toEqual(on.problems)
    expect((await ask(on.api, '/livez')).status).toBe(200)
  })

  it('is not ready when a check fails', async () => {
    const { api } = await stage({ checks: () => Promise.reject(new Error('broken')) })
    expect((await ask(api, '/readyz')).body.detail).toBe('a check failed: broken')
  })
})

describe('what no route answers', () => {
  it('is 404 for an unknown path', async () => {
    for (const url of ['/nope', '/v1', '/v2/devices', '//v1/devices', '/v1/devices/a/b', '/LIVEZ', '*']) {
      const { status, body } = await ask(on.api, url)
      expect(status, url).toBe(404)
      expect(body.type).toBe('urn:tidemark:problem:unknown-route')
    }
  })

  it('is 405 with Allow for a known path, whatever the body is', async () => {
    const cases = [
      ['POST', '/v1/devices/a', 'DELETE, GET, HEAD'],
      ['POST', '/v1/devices/a/attributes', 'GET, HEAD, PATCH, PUT'],
      ['POST', '/v1/devices', 'GET, HEAD'],
      // Names of routes are ids of devices, too.
      ['PUT', '/v1/devices/batch-get', 'DELETE, GET, HEAD, POST'],
      ['PUT', '/v1/devices/count', 'DELETE, GET, HEAD'],
      ['OPTIONS', '/openapi.json', 'GET, HEAD'],
      ['TRACE', '/', 'GET, HEAD'],
      ['QUERY', '/v1/devices', 'GET, HEAD'],
    ] as const
    for (const [method, url, allow] of cases) {
      for (const type of [undefined, 'application/json', 'text/xml', ';;']) {
        const headers = type === undefined ? {} : { 'content-type': type }
        const request = { method: method as 'PUT', url, headers }
        const { status, headers: answered } = await ask(
          on.api,
          type === undefined ? request : { ...request, payload: '{' },
        )
        expect({ method, url, type, status, allow: answered.allow }).toEqual({ method, url, type, status: 405, allow })
      }
    }
  })
})

it('reads a device that is called as a route of another method', async () => {
  on.fleet.put('batch-get')
  expect((await on.api.inject('/v1/devices/batch-get')).json().deviceId).toBe('batch-get')
})

describe('an unexpected error', () => {
  it('is a 500 that tells nothing of the inside', async () => {
    const reader = { get: () => Promise.reject(new TypeError('secret of line 17')) } as unknown as StatusReader
    const { api } = await stage({ reader })
    const { status, body } = await ask(api, '/v1/devices/a')
    expect(status).toBe(500)
    expect(JSON.stringify(body)).not.toMatch(/secret|TypeError|\.ts/)
  })
})

describe('the bound on reads under way', () => {
  it('refuses one more with 503 and Retry-After, and takes it when one has ended', async () => {
    const { promise, resolve } = Promise.withResolvers<Answer>()
    const reader = { get: () => promise } as unknown as StatusReader
    const registry = new Registry()
    const { api } = await stage({ reader, registry, limits: { maxSingleReads: 1 } })
    const first = api.inject('/v1/devices/a')
    const metric = registry.getSingleMetric('tidemark_http_reads_in_flight')
    await expect
      .poll(async () => (await metric?.get())?.values.find(({ labels }) => labels.kind === 'single')?.value)
      .toBe(1)
    const refused = await ask(api, '/v1/devices/b')
    expect(refused).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(refused.body.type).toBe('urn:tidemark:problem:overloaded')
    resolve({ status: undefined, freshness: { partition: 0, offset: 0, changelog: 0, lag: 0, servedBy: 'owner' } })
    expect((await first).statusCode).toBe(404)
    expect((await ask(api, '/v1/devices/b')).status).toBe(404)
  })
})

describe('the OpenAPI document', () => {
  it('is OpenAPI 3.1 with every route', async () => {
    const document = await documentOf(on.api)
    expect(document.openapi).toMatch(/^3\.1\./)
    const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    )
    expect(operations.toSorted()).toEqual([
      'delete /v1/devices/{deviceId}',
      'get /',
      'get /livez',
      'get /metrics',
      'get /openapi.json',
      'get /readyz',
      'get /v1/dead-letters',
      'get /v1/devices',
      'get /v1/devices/count',
      'get /v1/devices/{deviceId}',
      'get /v1/devices/{deviceId}/attributes',
      'get /v1/fleet/summary',
      'get /v1/partitions',
      'patch /v1/devices/{deviceId}/attributes',
      'post /v1/devices/batch-get',
      'put /v1/devices/{deviceId}/attributes',
    ])
  })

  it('has only references that lead somewhere, and examples that are what they show', async () => {
    const document = await documentOf(on.api)
    for (const operation of Object.values(document.paths).flatMap((methods) => Object.values(methods))) {
      expect(Object.keys(operation.responses)).toEqual(
        expect.arrayContaining([expect.stringMatching(/^20[04]$/), '400', '500']),
      )
      for (const [status, { content = {} }] of Object.entries(operation.responses)) {
        if (['204', '304'].includes(status)) expect(content).toEqual({})
        for (const [type, { schema, examples = {} }] of Object.entries(content)) {
          expect(type === 'application/problem+json').toBe(Number(status) >= 400)
          const check = validatorOf(document, schema)
          for (const { value } of Object.values(examples)) expect(check(value), JSON.stringify(value)).toBe(true)
        }
      }
    }
  })

  it('is linked from the index', async () => {
    const { body } = await ask(on.api, '/')
    for (const url of Object.values(body.links)) expect((await on.api.inject(url)).statusCode, url).toBe(200)
  })
})

describe('the instance of a problem', () => {
  it.each([
    ['/v1/devices/a?x=1', '/v1/devices/a'],
    ['/v1/devices/a%20b', '/v1/devices/a%20b'],
    ['/%zz', '/%25zz'],
    ['/a"b<c>\\', '/a%22b%3Cc%3E%5C'],
    ['/é', '/%E9'],
  ])('is a URI reference for %s', (target, instance) => {
    expect(instanceOf(target)).toBe(instance)
  })
})

const named = async (url: string, id?: string) => {
  const { headers } = await on.api.inject({ url, headers: id === undefined ? {} : { 'x-request-id': id } })
  return headers['x-request-id']
}

const caching = async (url: string) => (await on.api.inject(url)).headers['cache-control']

describe('the name of a request', () => {
  it('is what the caller says, in answers and problems alike', async () => {
    for (const url of ['/livez', '/v1/devices/nobody', '/v1/devices/%zz', '/nowhere']) {
      for (const id of ['a', 'x'.repeat(128), '0af7651916cd43dd8448eb211c80319c', 'A-1_b.c~d:e/f+g=@h']) {
        expect(await named(url, id), url).toBe(id)
      }
    }
  })

  it('is made when there is none, or one that is long or odd, and is never the same', async () => {
    const made = [await named('/livez'), await named('/nowhere')]
    for (const id of ['', 'x'.repeat(129), 'a b', 'a"b', 'a;b', '<script>']) made.push(await named('/livez', id))
    for (const id of made) expect(id).toMatch(/^request-[0-9a-z]+$/)
    expect(new Set(made).size).toBe(made.length)
  })

  it('is in the log beside the error that it met', async () => {
    const lines: string[] = []
    const logger = pino({}, { write: (line: string) => lines.push(line) })
    const reader = { get: () => Promise.reject(new TypeError('broken')) } as unknown as StatusReader
    const { api } = await stage({ reader, logger })
    await api.inject({ url: '/v1/devices/a', headers: { 'x-request-id': 'mine-1' } })
    expect(lines.map((line) => JSON.parse(line).requestId)).toEqual(['mine-1'])
  })
})

describe('caching', () => {
  it('is for one caller, and only after asking again; problems are not kept', async () => {
    on.fleet.put('a')
    for (const url of ['/v1/devices/a', '/v1/devices', '/v1/partitions']) expect(await caching(url)).toBe('no-cache')
    for (const url of ['/v1/devices/b', '/v1/devices?limit=0', '/nowhere']) expect(await caching(url)).toBe('no-store')
  })
})

const read = (encoding: string, url: string) =>
  on.api.inject({ url, headers: encoding === '' ? {} : { 'accept-encoding': encoding } })

describe('compression', () => {
  const unpack: Record<string, (bytes: Buffer) => Buffer> = { br: brotliDecompressSync, gzip: gunzipSync }

  it.each([10, 500])('is of what many devices say, for those who accept it: %i devices', async (count) => {
    for (let i = 0; i < count; i++) on.fleet.put(`d${i}`)
    const url = `/v1/devices?limit=${count}`
    const plain = await read('', url)
    expect(plain.headers).not.toHaveProperty('content-encoding')
    for (const [accepted, encoding] of [
      ['gzip', 'gzip'],
      ['gzip, deflate, br', 'br'],
      ['br;q=0, gzip;q=0.5', 'gzip'],
    ] as const) {
      const { headers, rawPayload } = await read(accepted, url)
      expect([headers['content-encoding'], headers.vary]).toEqual([encoding, 'accept-encoding'])
      expect(rawPayload.length).toBeLessThan(plain.rawPayload.length / 2)
      expect(unpack[encoding]?.(rawPayload).toString()).toBe(plain.body)
    }
    for (const accepted of ['identity', 'zstd', 'deflate', '*;q=0', ';;q=x']) {
      const { statusCode, headers, body } = await read(accepted, url)
      expect([statusCode, headers['content-encoding'], body], accepted).toEqual([200, undefined, plain.body])
    }
  })

  it('is not of little, nor of one device', async () => {
    on.fleet.put('a', { t: { value: 'x'.repeat(5000), at: '2026-11-24T10:00:00.000Z' } })
    for (const url of ['/livez', '/v1/devices/a', '/v1/devices/nobody']) {
      expect((await read('gzip, br', url)).headers, url).not.toHaveProperty('content-encoding')
    }
  })
})

describe('the limit of requests', () => {
  it('is of each caller, says what is left, and answers 429', async () => {
    const { api } = await stage({ ratePerMinute: 3 })
    const from = (remoteAddress: string, url = '/v1/devices') => ask(api, { url, remoteAddress })
    for (const left of ['2', '1', '0']) {
      const { status, headers } = await from('10.0.0.1')
      expect([status, headers['ratelimit-limit'], headers['ratelimit-remaining']]).toEqual([200, '3', left])
    }
    for (const url of ['/v1/devices', '/v1/devices/a', '/v1/partitions', '/metrics']) {
      const { status, headers, body } = await from('10.0.0.1', url)
      expect([status, body.type]).toEqual([429, 'urn:tidemark:problem:too-many-requests'])
      expect(Number(headers['retry-after'])).toBeGreaterThan(0)
    }
    expect((await from('10.0.0.2')).status).toBe(200)
    for (const url of ['/livez', '/readyz', '/openapi.json']) expect((await from('10.0.0.1', url)).status).toBe(200)
  })

  it('begins anew after a minute, whatever somebody does to the time of day', async () => {
    let steady = 0
    const { api } = await stage({ ratePerMinute: 1, now: () => steady })
    const status = () => api.inject('/v1/devices').then(({ statusCode }) => statusCode)
    expect([await status(), await status()]).toEqual([200, 429])
    steady += 59_999
    expect(await status()).toBe(429)
    steady++
    expect([await status(), await status()]).toEqual([200, 429])
  })

  it('forgets of more than 10,000 callers the one that was not seen for longest', async () => {
    const { api } = await stage({ ratePerMinute: 1, now: () => 0 })
    const from = async (remoteAddress: string) => (await api.inject({ url: '/v1/devices/a', remoteAddress })).statusCode
    const [oldest, old, busy] = ['192.0.2.1', '192.0.2.2', '192.0.2.3'] as const
    for (const address of [busy, oldest, old]) expect(await from(address)).not.toBe(429)
    expect(await from(busy)).toBe(429)
    for (let i = 3; i <= 10_000; i++) await from(`10.0.${i >> 8}.${i & 255}`)
    expect([await from(busy), await from(old)]).toEqual([429, 429])
    expect(await from(oldest)).not.toBe(429)
  })

  it('is of the caller that a trusted proxy names, and of no other', async () => {
    const { api } = await stage({ ratePerMinute: 1, trustedProxies: 'loopback,10.1.0.0/16' })
    const from = async (remoteAddress: string, forwarded: string) => {
      const headers = { 'x-forwarded-for': forwarded }
      return (await ask(api, { url: '/v1/devices', remoteAddress, headers })).status
    }
    expect(await from('10.1.2.3', '192.0.2.1')).toBe(200)
    expect(await from('127.0.0.1', '192.0.2.2')).toBe(200)
    // What a client has put before it is not believed, and nor is a client that is no proxy.
    expect(await from('10.1.2.3', '192.0.2.9, 192.0.2.1')).toBe(429)
    expect(await from('10.2.0.1', '192.0.2.3')).toBe(200)
    expect(await from('10.2.0.1', '192.0.2.4')).toBe(429)
    // Some proxies tell the port, too, which is another for each connection.
    for (const address of ['192.0.2.5', '[2001:db8::1]']) {
      expect(await from('10.1.2.3', `${address}:4711`)).toBe(200)
      for (const same of [`${address}:4712`, address]) expect(await from('10.1.2.3', same), same).toBe(429)
    }
    expect(await from('10.1.2.3', '2001:db8::1')).toBe(429)
  })

  it('is none unless one is given', async () => {
    expect((await ask(on.api, '/v1/devices')).headers).not.toHaveProperty('ratelimit-limit')
  })
})
