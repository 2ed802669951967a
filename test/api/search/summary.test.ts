import { beforeEach, describe, expect, it } from 'vitest'
import { type Field, parseField } from '../../../processor/contract/field.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { ask, type Body } from '../conformance.ts'
import { AT, withBattery } from '../fleet.ts'
import { type Stage, stage } from '../stage.ts'

let on: Stage
beforeEach(async () => {
  on = await stage()
})

describe('GET /v1/fleet/summary', () => {
  it('counts groups, the lack of a field among them, and tells how a metric lies', async () => {
    for (const [i, type] of ['truck', 'truck', 'van', undefined].entries()) {
      on.fleet.putStatus(
        withBattery(
          `d${i}`,
          i === 3 ? undefined : i * 10,
          type === undefined ? undefined : { type, tags: ['x', `t${i}`] },
        ),
      )
    }
    const { body } = await ask(
      on.api,
      '/v1/fleet/summary?by=connectivity.state,attributes.type&metric=reported.battery',
    )
    expect(body).toMatchObject({
      devices: 4,
      complete: true,
      notShown: 0,
      groups: [
        {
          by: { 'connectivity.state': 'online', 'attributes.type': 'truck' },
          count: 2,
          metrics: {
            'reported.battery': { count: 2, min: 0, max: 10, mean: 5, exact: true, percentiles: { p50: 0, p99: 10 } },
          },
        },
        { by: { 'connectivity.state': 'offline' }, count: 1, metrics: { 'reported.battery': null } },
        { by: { 'connectivity.state': 'online', 'attributes.type': 'van' }, count: 1 },
      ],
    })
    const tags = await ask(on.api, '/v1/fleet/summary?by=attributes.tags&q=attributes.type:truck')
    expect(tags.body).toMatchObject({
      devices: 2,
      groups: [
        { by: { 'attributes.tags': 'x' }, count: 2 },
        { by: { 'attributes.tags': 't0' }, count: 1 },
        { by: { 'attributes.tags': 't1' }, count: 1 },
      ],
    })
  })

  it('says so when there are more groups than it shows', async () => {
    for (let i = 0; i < 1010; i++) on.fleet.putStatus(withBattery(`d${i}`, i))
    const { body } = await ask(on.api, '/v1/fleet/summary?by=deviceId')
    expect(body).toMatchObject({ devices: 1010, notShown: 10, complete: false, reason: expect.any(String) })
  })

  const list = Array.from({ length: 16 }, (_, i) => i)
  const LISTS = { a: list, b: list, c: list, d: list }

  it('says so when a device is in more groups than are shown of one', async () => {
    for (let i = 0; i < 3; i++) on.fleet.putStatus(withBattery(`d${i}`, i, LISTS))
    const two = await ask(on.api, '/v1/fleet/summary?by=attributes.a,attributes.b')
    expect(two.body).toMatchObject({ devices: 3, notShown: 0, complete: true })
    expect((two.body as Body & { groups: unknown[] }).groups).toHaveLength(256)
    const four = await ask(on.api, '/v1/fleet/summary?by=attributes.a,attributes.b,attributes.c,attributes.d')
    expect(four.body).toMatchObject({
      devices: 3,
      notShown: 3,
      complete: false,
      reason: expect.stringContaining('256'),
    })
    expect((four.body as Body & { groups: unknown[] }).groups).toHaveLength(256)
  })

  it('lets others have their turn, and ends a slice in time, however many groups its devices are in', async () => {
    const ids = Array.from({ length: 400 }, (_, i) => `d${i}`).filter((id) => partitionOf(id, 4) === 0)
    const devices = ids.slice(0, 60)
    for (const id of devices) on.fleet.putStatus(withBattery(id, 5, LISTS))
    const member = on.fleet.member('a')
    let now = 0
    member.searchClock = () => (now += 120)
    let turns = 0
    const count = () => {
      turns++
      immediate = setImmediate(count)
    }
    let immediate = setImmediate(count)
    const by = Object.keys(LISTS).map((name) => parseField(`attributes.${name}`) as Field)
    const question = { partition: 0, query: parseQuery(''), within: undefined, by, metrics: [] }
    const slices: number[] = []
    let from: string | undefined
    do {
      const { summary, next } = await member.summarize({ ...question, from })
      slices.push(summary.devices)
      from = next
    } while (from !== undefined)
    clearImmediate(immediate)
    expect(slices[0]).toBeLessThan(devices.length)
    expect(slices.reduce((sum, found) => sum + found)).toBe(devices.length)
    expect(turns).toBeGreaterThan(5)
  })

  it('groups by fields, and tells of metrics, that have a comma in their names', async () => {
    for (const [id, load] of [
      ['pump-1', 4],
      ['pump-2', 6],
    ] as const) {
      on.fleet.put(id, { 'load,mean': { value: load, at: AT }, 'a,b': { value: 'x', at: AT }, c: { value: 1, at: AT } })
    }
    const parameters = new URLSearchParams({
      by: 'reported.a\\,b,reported.c',
      metric: 'reported.load\\,mean,reported.c',
    })
    const { status, body } = await ask(on.api, `/v1/fleet/summary?${parameters.toString()}`)
    expect(status).toBe(200)
    const groups = [
      {
        by: { 'reported.a,b': 'x', 'reported.c': 1 },
        count: 2,
        metrics: { 'reported.load,mean': { min: 4, max: 6, mean: 5 }, 'reported.c': { count: 2 } },
      },
    ]
    expect(body).toMatchObject({ groups })
  })
})
