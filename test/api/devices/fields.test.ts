import { beforeEach, describe, expect, it } from 'vitest'
import { projectionOf } from '../../../api/devices/projection.ts'
import { sliceOf } from '../../../processor/contract/query.ts'
import { ask } from '../conformance.ts'
import { type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
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
    const url = `/v1/devices/batch-get?fields=${encodeURIComponent(fields)}`
    const results = await ask(on.api, { method: 'POST', url, payload: { deviceIds: ['a', 'b'] } })
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
    const bytes = sliceOf(Buffer.from(JSON.stringify(status)))
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
