import * as fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { searchFleet, summarizeFleet } from '../../../api/search/fleet-search.ts'
import { valueOf } from '../../../processor/contract/field.ts'
import { compareInOrder, type Order, parseOrder, sortKey } from '../../../processor/contract/order.ts'
import { printQuery, type Query } from '../../../processor/contract/search.ts'
import type { Status } from '../../../processor/contract/status.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { naiveMatches } from '../../processor/search/language/naive-query.ts'
import { query, statusWith } from '../../processor/search/language/queries.ts'
import { ask, type Body } from '../conformance.ts'
import { AT, withBattery } from '../fleet.ts'
import { routed, type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})

/** Every read of up to `reads` devices is a slice of its own. */
function shortSlices({ fleet: { members } }: Stage, reads = 64): void {
  let now = 0
  for (const member of members.values()) {
    member.searchClock = () => (now += 1000)
    member.searchReads = reads
  }
}

const parameters = (given: Record<string, string | number | undefined>) =>
  new URLSearchParams(
    Object.entries(given).flatMap(([k, v]) => (v === undefined ? [] : [[k, String(v)] as [string, string]])),
  ).toString()

describe('GET /v1/devices?q=', () => {
  it('finds, orders and pages, and links to the next page by the same query', async () => {
    for (let i = 0; i < 30; i++)
      on.fleet.putStatus(withBattery(`d${i}`, i % 3 === 0 ? undefined : i, { site: `k${i % 2}` }))
    const seen: string[] = []
    let url: string | undefined =
      `/v1/devices?${parameters({ q: 'attributes.site:k1 AND NOT rev:7', sort: '-reported.battery', limit: 4 })}`
    while (url !== undefined) {
      const { status, body, headers } = await ask(on.api, url)
      expect(status).toBe(200)
      seen.push(...body.items.map((item) => item.deviceId))
      url = headers.link?.match(/^<(.*)>; rel="next"$/)?.[1]
      if (url !== undefined) expect(new URLSearchParams(url.split('?')[1]).get('cursor')).toBe(body.nextCursor)
    }
    const numbers = [29, 25, 23, 19, 17, 13, 11, 7, 5, 1].map((n) => `d${n}`)
    expect(seen).toEqual([...numbers, 'd15', 'd21', 'd27', 'd3', 'd9'])
  })

  it('equals filtering and sorting, over any fleet, query, order and page size, however short the slices are', async () => {
    const sort = fc.constantFrom(
      'deviceId',
      '-deviceId',
      'lastSeenAt',
      '-reported.a',
      'attributes.site',
      '-attributes.p.q',
    )
    await fc.assert(
      fc.asyncProperty(fleet(30), query, sort, fc.integer({ min: 1, max: 7 }), async (devices, asked, by, limit) => {
        await using here = await stage()
        shortSlices(here, 2)
        for (const each of devices) here.fleet.putStatus(each)
        const order = parseOrder(by) as Order
        const expected = naive(devices, asked, order).map(({ deviceId }) => deviceId)
        expect(await pages(here, { q: printQuery(asked), sort: by, limit })).toEqual(expected)
        const count = await ask(here.api, `/v1/devices/count?${parameters({ q: printQuery(asked) })}`)
        expect(count.body).toMatchObject({ count: expected.length, complete: true })
      }),
      { numRuns: 60 },
    )
  })

  it('gives what does not change between the pages once, in its place, whatever else changes', async () => {
    const sort = fc.constantFrom('deviceId', '-lastSeenAt', 'reported.a')
    await fc.assert(
      fc.asyncProperty(fleet(20), fleet(20), sort, async (steady, changing, by) => {
        await using here = await stage()
        const ids = new Set(steady.map(({ deviceId }) => deviceId))
        for (const each of steady) here.fleet.putStatus(each)
        const others = changing.filter(({ deviceId }) => !ids.has(deviceId))
        let step = 0
        const seen = await pages(here, { sort: by, limit: 3 }, () => {
          const other = others[step++ % others.length]
          if (other === undefined) return
          if (step % 3 === 0) here.fleet.delete(other.deviceId)
          else here.fleet.putStatus({ ...other, lastSeenAt: new Date(Date.parse(AT) + step).toISOString() })
        })
        const order = parseOrder(by) as Order
        const expected = naive(steady, parseQuery(''), order).map(({ deviceId }) => deviceId)
        expect(seen.filter((id) => ids.has(id))).toEqual(expected)
      }),
      { numRuns: 30 },
    )
  })

  it('says when it was cut short, and goes on from there in the order of the ids', async () => {
    let now = 0
    const here = await stage({ limits: { searchMs: 5 }, now: () => now++ })
    shortSlices(here)
    for (let i = 0; i < 3000; i++) here.fleet.putStatus(withBattery(`d${i}`, i))
    const seen: string[] = []
    let cuts = 0
    for (let cursor: string | undefined; ; ) {
      const { body } = await ask(here.api, `/v1/devices?${parameters({ q: 'reported.battery:>2990', cursor })}`)
      seen.push(...body.items.map((item) => item.deviceId))
      const { complete, reason } = body as Body & { complete?: boolean; reason?: string }
      if (complete === false) {
        cuts++
        expect(reason).toContain('5 ms')
        expect(body.nextCursor).toBeDefined()
      }
      cursor = body.nextCursor
      if (cursor === undefined) break
    }
    expect(cuts).toBeGreaterThan(1)
    expect(seen.toSorted()).toEqual(Array.from({ length: 9 }, (_, i) => `d${2991 + i}`))
    expect(seen).toEqual(seen.toSorted())
    const sorted = await ask(here.api, '/v1/devices?sort=-reported.battery')
    expect(sorted.body).toMatchObject({ complete: false })
    expect(sorted.body.nextCursor).toBeUndefined()
    const count = await ask(here.api, '/v1/devices/count?q=reported.battery:*')
    expect(count.body).toMatchObject({ complete: false, reason: expect.stringContaining('5 ms') })
  })

  it('goes on at a standby when the owner goes away between two slices', async () => {
    for (let i = 0; i < 2000; i++) on.fleet.putStatus(withBattery(`d${i}`, i))
    shortSlices(on)
    let asked = 0
    const first = on.fleet.member('a')
    const search = first.search.bind(first)
    first.search = (question) => {
      if (++asked === 2) for (const p of [0, 2]) on.fleet.assign(p, undefined, 'b')
      return search(question)
    }
    const { body } = await ask(on.api, '/v1/devices?q=reported.battery:%3E1997')
    expect(body.items.map((item) => item.deviceId)).toEqual(['d1998', 'd1999'])
    expect(asked).toBeGreaterThan(1)
  })

  it('answers 503 when a partition has no copy', async () => {
    on.fleet.assign(1, undefined)
    for (const path of ['/v1/devices?q=x', '/v1/devices/count', '/v1/fleet/summary']) {
      expect((await ask(on.api, path)).status).toBe(503)
    }
  })

  it('keeps to the prefixes of its caller, in any order', async () => {
    for (const id of ['a-1', 'a-2', 'b-1', 'c', 'c-1', 'ca', 'd']) on.fleet.putStatus(withBattery(id, 5))
    const reader = routed(on.fleet)
    const within = ['a-', 'c-', 'd']
    const found = async (q: string, sort: string, after?: string) => {
      const order = parseOrder(sort) as Order
      const place = after === undefined ? undefined : { key: sortKey(after), deviceId: after }
      const options = { query: parseQuery(q), within, order, after: place, limit: 3, isOver: () => false }
      return (await searchFleet(reader, options)).items.map(({ deviceId }) => deviceId)
    }
    expect(await found('', 'deviceId')).toEqual(['a-1', 'a-2', 'c-1'])
    expect(await found('', 'deviceId', 'a-2')).toEqual(['c-1', 'd'])
    expect(await found('', '-deviceId', 'c-1')).toEqual(['a-2', 'a-1'])
    expect(await found('', 'reported.battery')).toEqual(['a-1', 'a-2', 'c-1'])
    expect(await found('deviceId:(b* OR c*) OR reported.battery:9', 'deviceId')).toEqual(['c-1'])
    expect(await found('deviceId:c*', 'deviceId')).toEqual(['c-1'])
    expect(await found('deviceId:b-1', 'deviceId')).toEqual([])
    const options = { query: parseQuery(''), within, by: [], metrics: [], isOver: () => false }
    expect((await summarizeFleet(reader, options)).summary.devices).toBe(4)
  })

  it.each([
    ['/v1/devices?q=rev:1%20AND', 'q', 9],
    ['/v1/devices?q=nofield:1', 'q', 0],
    [`/v1/devices?q=${'x'.repeat(2049)}`, 'q', undefined],
    ['/v1/devices?q=a&q=b', 'q', undefined],
    ['/v1/devices?fields=', 'fields', undefined],
    ['/v1/devices?fields=rev,nofield', 'fields', undefined],
    ['/v1/devices?sort=foo', 'sort', undefined],
    ['/v1/devices?sort=reported', 'sort', undefined],
    ['/v1/devices?sort=', 'sort', undefined],
    ['/v1/devices?sort=--rev', 'sort', undefined],
    ['/v1/devices/count?q=%22%F0%9F%98%80%22(', 'q', 4],
    ['/v1/devices/count?limit=1', 'limit', undefined],
    ['/v1/fleet/summary?by=foo', 'by', undefined],
    ['/v1/fleet/summary?by=', 'by', undefined],
    ['/v1/fleet/summary?by=rev,rev', 'by', undefined],
    ['/v1/fleet/summary?by=reported.a,reported.b,reported.c,reported.d,reported.e', 'by', undefined],
    ['/v1/fleet/summary?metric=attributes', 'metric', undefined],
    ['/v1/fleet/summary?metrics=rev', 'metrics', undefined],
  ])('refuses %s with 400 that names %s', async (path, field, position) => {
    const { status, body } = await ask(on.api, path)
    expect(status).toBe(400)
    expect(body.errors[0]).toMatchObject({ field, ...(position === undefined ? {} : { position }) })
  })

  it('shows the fields that are asked for, on every page, whatever it is ordered by', async () => {
    for (let i = 0; i < 5; i++) on.fleet.putStatus(withBattery(`d${i}`, i, i === 0 ? undefined : { site: `k${i}` }))
    const fields = 'attributes.site,reported.battery.at'
    let url = `/v1/devices?${parameters({ q: 'rev:1', sort: '-reported.battery', limit: 2, fields })}`
    const seen: unknown[] = []
    for (;;) {
      const { body, headers } = await ask(on.api, url)
      for (const { freshness, ...shown } of body.items) {
        expect(freshness).toMatchObject({ servedBy: 'owner' })
        seen.push(shown)
      }
      const next = headers.link?.match(/^<(.*)>; rel="next"$/)?.[1]
      if (next === undefined) break
      url = next
    }
    const reported = { battery: { at: AT } }
    const sites = [4, 3, 2, 1].map((i) => ({ deviceId: `d${i}`, attributes: { site: `k${i}` }, reported }))
    expect(seen).toEqual([...sites, { deviceId: 'd0', reported }])
    const { body } = await ask(on.api, '/v1/devices?fields=rev,nofield')
    expect(body.errors[0]?.message).toContain('"nofield" is no field')
  })

  it('refuses a cursor of another query or sort', async () => {
    for (let i = 0; i < 5; i++) on.fleet.putStatus(withBattery(`d${i}`, i))
    const { body } = await ask(on.api, '/v1/devices?limit=2&q=d')
    for (const other of ['', '&q=d4', '&q=d&sort=-deviceId']) {
      const refused = await ask(on.api, `/v1/devices?limit=2${other}&cursor=${body.nextCursor}`)
      expect(refused).toMatchObject({ status: 400, body: { errors: [{ field: 'cursor' }] } })
    }
    expect((await ask(on.api, `/v1/devices?limit=9&q=d&cursor=${body.nextCursor}`)).body.items).toHaveLength(3)
  })

  it('leaves a device called count to be read by batch-get', async () => {
    on.fleet.putStatus(withBattery('count', 5))
    expect((await ask(on.api, '/v1/devices/count')).body).toMatchObject({ count: 1 })
    const payload = { deviceIds: ['count'] }
    const { body } = await ask(on.api, { method: 'POST', url: '/v1/devices/batch-get', payload })
    expect(body.results[0]).toMatchObject({ deviceId: 'count', found: true })
  })
})

function fleet(max: number): fc.Arbitrary<Status[]> {
  const id = fc.stringMatching(/^[a-c:.]{1,3}$/)
  return fc.uniqueArray(statusWith(id), { maxLength: max, selector: ({ deviceId }) => deviceId })
}

function naive(devices: readonly Status[], asked: Query, order: Order): Status[] {
  const key = (each: Status) => sortKey(valueOf(order.field, each))
  return devices
    .filter((each) => naiveMatches(asked.root, each))
    .sort((a, b) => compareInOrder(order.descending, key(a), a.deviceId, key(b), b.deviceId))
}

async function pages(
  { api }: Pick<Stage, 'api'>,
  given: Record<string, string | number>,
  between: () => void = () => {},
): Promise<string[]> {
  const seen: string[] = []
  for (let cursor: string | undefined; ; between()) {
    const { status, body } = await ask(api, `/v1/devices?${parameters({ ...given, cursor })}`)
    expect(status).toBe(200)
    seen.push(...body.items.map((item) => item.deviceId))
    cursor = body.nextCursor
    if (cursor === undefined) return seen
  }
}
