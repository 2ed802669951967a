import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../../../processor/contract/json.ts'
import { type Order, parseOrder, type SortKey, sortKey } from '../../../../processor/contract/order.ts'
import { CANDIDATE_COST, MAX_GATHERED, planIndex, planTopN } from '../../../../processor/search/index/plan.ts'
import { parseQuery } from '../../../../processor/search/language/parser.ts'
import { reindex } from '../../../../processor/store/index-entries.ts'
import { type CountChanges, IndexCounts } from '../../../../processor/store/partition-index.ts'

interface Kind {
  readonly devices: number
  readonly state?: 'online' | 'offline' | 'unknown'
  readonly lastSeenAt?: string
  readonly attributes?: JsonObject
}

/** What is counted of a fleet of so many devices of each kind. */
function counted(...kinds: readonly Kind[]): IndexCounts {
  const changes: CountChanges = new Map()
  for (const { devices, state = 'online', lastSeenAt = '2026-11-24T10:00:00.000Z', attributes } of kinds) {
    const after = { state, lastSeenAt, attributes: attributes && JSON.stringify(attributes) }
    reindex(
      { deviceId: 'd', before: undefined, after },
      {
        put: () => {},
        delete: () => {},
        count: (group, what, by) => {
          const counts = changes.get(group) ?? new Map<string, number>()
          changes.set(group, counts.set(what, (counts.get(what) ?? 0) + by * devices))
        },
      },
    )
  }
  const counts = new IndexCounts()
  counts.accept(counts.planned(changes))
  return counts
}

function silent(devices: number): IndexCounts {
  return counted({ devices: 100_000 }, { devices, lastSeenAt: '2026-11-23T09:00:00.000Z' })
}

function plan(text: string, counts: IndexCounts, limit?: number) {
  return planIndex({ root: parseQuery(text).root, counts, limit, cost: CANDIDATE_COST })
}

const FLEET = counted(
  { devices: 80_000, attributes: { site: 'k1', size: 5 } },
  { devices: 900, attributes: { site: 'k2', size: '5' } },
  { devices: 100, state: 'offline', lastSeenAt: '2026-11-23T09:00:00.000Z', attributes: { site: 'k2' } },
  { devices: 10_000, state: 'unknown' },
  { devices: 9_000, lastSeenAt: '2026-11-20T09:00:00.000Z', attributes: { tags: ['a', 'b'] } },
)

describe('the plan of a search', () => {
  it.each([
    ['connectivity.state:offline', ['s\0offline']],
    ['connectivity.state:"offline"', ['s\0offline']],
    ['NOT connectivity.state:online', ['s\0offline', 's\0unknown']],
    ['connectivity.state:(offline OR unknown)', ['s\0offline', 's\0unknown']],
    ['connectivity.state:off*', ['s\0offline']],
    ['connectivity.state:away', []],
    ['attributes.site:k2', ['a"site"\0"k2\0online', 'a"site"\0"k2\0offline']],
    ['attributes.site:none', []],
    ['attributes.tags:a', ['a"tags"\0"a\0online']],
    ['attributes.site:(k2 OR k3)', ['a"site"\0"k2\0online', 'a"site"\0"k2\0offline']],
    ['attributes.size:"5"', ['a"size"\0"5\0online']],
    [
      'attributes.site:k2 OR connectivity.state:offline',
      ['a"site"\0"k2\0online', 'a"site"\0"k2\0offline', 's\0offline'],
    ],
    ['attributes.site:k2 AND connectivity.state:offline', ['a"site"\0"k2\0offline']],
    ['NOT connectivity.state:online AND (attributes.site:k2 OR attributes.site:k1)', ['a"site"\0"k2\0offline']],
    ['connectivity.state:online AND connectivity.state:offline', []],
  ])('of %s walks entries', (text, entries) => {
    expect(plan(text, FLEET, 50)).toEqual({ kind: 'walk', entries })
    expect(plan(text, FLEET)).toEqual({ kind: 'walk', entries })
  })

  it.each([
    ['attributes.site:k2 AND connectivity.state:unknown', []],
    [
      'attributes.site:k1 AND reported.battery:<20 AND attributes.site:k2',
      ['a"site"\0"k2\0online', 'a"site"\0"k2\0offline'],
    ],
    [
      'lastSeenAt:>=2026-11-24 AND attributes.site:k2 AND NOT attributes.site:k1',
      ['a"site"\0"k2\0online', 'a"site"\0"k2\0offline'],
    ],
  ])('of %s takes the most selective condition', (text, entries) => {
    expect(plan(text, FLEET, 50)).toEqual({ kind: 'walk', entries })
  })

  it.each([
    ['lastSeenAt:<2026-11-24', { from: 'l\0', to: 'l\x002026-11-24\x01' }],
    [
      'lastSeenAt:[2026-11-23T08:55:00Z TO 2026-11-23T09:05:00Z]',
      { from: 'l\x002026-11-23T08:5', to: 'l\x002026-11-23T09:0\x01' },
    ],
    ['lastSeenAt:"2026-11-23T09:00:00.000Z"', { from: 'l\x002026-11-23T09:0', to: 'l\x002026-11-23T09:0\x01' }],
    ['lastSeenAt:<=2026-11-23', { from: 'l\0', to: 'l\x002026-11-23~\x01' }],
    ['lastSeenAt:2026-11-23', { from: 'l\x002026-11-23', to: 'l\x002026-11-23~\x01' }],
    ['lastSeenAt:2026-11-23*', { from: 'l\x002026-11-23', to: 'l\x002026-11-23\x7f\x01' }],
    ['attributes.site:k2*', { from: 'a"site"\0"k2', to: 'a"site"\0"k3' }],
    ['attributes.none:*', { from: 'a"none"\0', to: 'a"none"\x01' }],
  ])('of %s gathers a range', (text, range) => {
    const few = counted(
      { devices: 100_000, attributes: { site: 'k1' } },
      { devices: 300, lastSeenAt: '2026-11-23T09:00:00.000Z', attributes: { site: 'k2' } },
    )
    expect(plan(text, few)).toEqual({ kind: 'gather', ranges: [range] })
    expect(plan(text, few, 50)).toEqual({ kind: 'gather', ranges: [range] })
  })

  it('of a value that may stand in a list beside what is not counted looks in the entries of the list', () => {
    const fleet = counted({ devices: 1_000 }, { devices: 1, attributes: { tags: ['a', {}] } })
    expect(plan('attributes.tags:a', fleet)).toEqual({ kind: 'walk', entries: ['a"tags"\0"a\0online'] })
  })

  it('of a number looks for the text too', () => {
    const fleet = counted({ devices: 1_000, attributes: { size: 1 } }, { devices: 1, attributes: { size: [5, '5'] } })
    expect(plan('attributes.size:5', fleet)).toEqual({
      kind: 'walk',
      entries: ['a"size"\0"5\0online', 'a"size"\x005\0online'],
    })
  })

  it.each([
    ['*'],
    ['connectivity.state:online'],
    ['attributes.site:k1'],
    ['reported.battery:<20'],
    ['deviceId:truck*'],
    ['NOT attributes.site:k1'],
    ['attributes.site:k2 OR reported.battery:<20'],
    ['attributes.site:*'],
    ['attributes.site:>k1'],
    ['attributes.site.name:k2'],
    ['attributes:*'],
    ['lastSeenAt:>=2026-11-24'],
    ['lastSeenAt:*'],
    ['firstSeenAt:<2026-11-24'],
  ])('of %s scans', (text) => {
    expect(plan(text, FLEET, 50)).toEqual({ kind: 'scan' })
    expect(plan(text, FLEET)).toEqual({ kind: 'scan' })
  })

  it('gathers for a page only what a scan would not find sooner, and never too much', () => {
    const text = 'lastSeenAt:<2026-11-24'
    expect(plan(text, silent(5_000), 10)).toEqual({ kind: 'scan' })
    expect(plan(text, silent(5_000))).toMatchObject({ kind: 'gather' })
    expect(plan(text, silent(MAX_GATHERED + 1))).toEqual({ kind: 'scan' })
  })

  it('looks among those that have no entries of their own too', () => {
    const many = Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`n${i}`, i]))
    const fleet = (few: number) => {
      return counted({ devices: 1_000 }, { devices: few, attributes: many }, { devices: few, lastSeenAt: 'never' })
    }
    expect(plan('attributes.n0:1', fleet(2))).toEqual({ kind: 'walk', entries: ['!wide'] })
    expect(plan('connectivity.state:offline', fleet(2))).toEqual({ kind: 'walk', entries: ['s\0offline', '!odd'] })
    expect(plan('attributes.site:k1', fleet(500))).toEqual({ kind: 'scan' })
  })

  it('guesses when there were too many values to count', () => {
    const changes: CountChanges = new Map([
      ['s', new Map([['online', 10_000]])],
      ['a"serial"', new Map(Array.from({ length: 5_000 }, (_, i) => [`"n${i}"\0online`, 1]))],
    ])
    const counts = new IndexCounts()
    counts.accept(counts.planned(changes))
    expect(counts.all('a"serial"')).toBeUndefined()
    expect(plan('attributes.serial:n5', counts, 50)).toEqual({
      kind: 'walk',
      entries: ['online', 'offline', 'unknown'].map((state) => `a"serial"\0"n5\0${state}`),
    })
    expect(plan('attributes.serial:*', counts)).toEqual({ kind: 'scan' })
  })
})

const MOST: Kind = { devices: 100_000, lastSeenAt: '2026-11-24T12:00:00.000Z' }
const SILENT: Kind[] = [
  { devices: 40, lastSeenAt: '2026-11-24T09:00:00.000Z' },
  { devices: 30, lastSeenAt: '2026-11-24T09:10:00.000Z' },
  { devices: 50, state: 'offline', lastSeenAt: '2026-11-24T09:20:00.000Z' },
  { devices: 20, lastSeenAt: '2026-11-24T09:30:00.000Z' },
]
const BEGUN = counted(MOST, ...SILENT)

function beginning(sort: string, limit: number, q = '*', key?: SortKey, counts = BEGUN) {
  const after = key === undefined ? undefined : { key, deviceId: 'd' }
  const order = parseOrder(sort) as Order
  return planTopN({ root: parseQuery(q).root, counts, order, after, limit, cost: CANDIDATE_COST })
}

function early(devices: number, others: number): IndexCounts {
  return counted({ ...MOST, devices: others }, { devices, lastSeenAt: '2026-11-24T09:00:00.000Z' })
}

/** Slots of this hour, as `l\x002026-11-24T09:1`. */
function slot(tens: number | string): string {
  return `l\x002026-11-24T09:${tens}`
}

function upTo(text: string) {
  return { key: sortKey(`2026-11-24T09:${text}`), deviceId: '' }
}

describe('the plan of a list in the order of the times seen last', () => {
  it.each([
    [40, '*', 0],
    [41, '*', 1],
    [71, '*', 2],
    // Those at an end of what is asked may all be outside.
    [30, 'lastSeenAt:>2026-11-24T09:05:00Z', 1],
    [31, 'lastSeenAt:>2026-11-24T09:05:00Z', 2],
    [80, 'lastSeenAt:>=2026-11-24T09:05:00Z AND lastSeenAt:<2026-11-24T10:00:00Z', 2],
    [50, 'lastSeenAt:>=2026-11-24T09:05:00Z lastSeenAt:>2026-11-24T09:15:00Z lastSeenAt:>=2026', 2],
  ])('for %i of %s ends where they must be', (limit, q, last) => {
    const found = beginning('lastSeenAt', limit, q)
    expect(found?.upTo).toEqual(upTo(`${last}\x7f`))
    expect(found?.ranges).toHaveLength(1)
    expect(found?.ranges[0]?.to).toBe(`${slot(last)}\x01`)
  })

  it.each([
    [20, 'lastSeenAt:<2026-11-24T10:00:00Z', 'l\x002026-11-24T10:0\x01', 3],
    [21, 'lastSeenAt:<2026-11-24T10:00:00Z', 'l\x002026-11-24T10:0\x01', 2],
    [20, 'lastSeenAt:<2026-11-24T09:35:00Z', `${slot(3)}\x01`, 2],
    [50, 'lastSeenAt:<2026-11-24T09:35:00Z AND lastSeenAt:<2026-11-24T10:00:00Z', `${slot(3)}\x01`, 2],
  ])('for %i of %s goes back from the end when the last is to come first', (limit, q, to, last) => {
    expect(beginning('-lastSeenAt', limit, q)).toEqual({ ranges: [{ from: slot(last), to }], upTo: upTo(`${last}`) })
  })

  it('goes on at the slot of the device that came last, of which nobody knows how many come after it', () => {
    const key = sortKey('2026-11-24T09:12:00.000Z')
    const ranges = (last: number) => [{ from: slot(1), to: `${slot(last)}\x01` }]
    expect(beginning('lastSeenAt', 30, '*', key)).toEqual({ ranges: ranges(2), upTo: upTo('2\x7f') })
    expect(beginning('lastSeenAt', 50, '*', key)).toEqual({ ranges: ranges(2), upTo: upTo('2\x7f') })
    expect(beginning('lastSeenAt', 51, '*', key)).toEqual({ ranges: ranges(3), upTo: upTo('3\x7f') })
    expect(beginning('-lastSeenAt', 30, '*', key)).toEqual({
      ranges: [{ from: 'l\0', to: `${slot(1)}\x01` }],
      upTo: undefined,
    })
    expect(beginning('-lastSeenAt', 30, '*', sortKey('2026-11-24T09:22:00.000Z'))).toEqual({
      ranges: [{ from: slot(1), to: `${slot(2)}\x01` }],
      upTo: upTo('1'),
    })
  })

  it('has no end when all that is asked for is there', () => {
    const [q, to] = ['lastSeenAt:<2026-11-24T10:00:00Z', 'l\x002026-11-24T10:0\x01']
    expect(beginning('lastSeenAt', 500, q)).toEqual({ ranges: [{ from: 'l\0', to }], upTo: undefined })
    expect(beginning('lastSeenAt', 140, q)).toEqual({ ranges: [{ from: 'l\0', to }], upTo: undefined })
    const one = 'lastSeenAt:"2026-11-24T09:00:00.000Z"'
    const ranges = [{ from: slot(0), to: `${slot(0)}\x01` }]
    expect(beginning('lastSeenAt', 5, one)).toEqual({ ranges, upTo: undefined })
  })

  it('ends before a slot that has too many, when what stands before may be enough', () => {
    expect(beginning('lastSeenAt', 140)?.upTo).toEqual(upTo('3\x7f'))
    expect(beginning('lastSeenAt', 141)).toBeUndefined()
    const key = sortKey('2026-11-24T09:22:00.000Z')
    expect(beginning('lastSeenAt', 70, '*', key)?.upTo).toEqual(upTo('3\x7f'))
    expect(beginning('lastSeenAt', 71, '*', key)).toBeUndefined()
    expect(beginning('-lastSeenAt', 1)).toBeUndefined()
    expect(beginning('lastSeenAt', 1, '*', sortKey('2026-11-24T12:00:00.000Z'))).toBeUndefined()
  })

  it('never has more than is gathered, nor than is cheaper than a scan', () => {
    expect(beginning('lastSeenAt', 5, '*', undefined, early(MAX_GATHERED, 1e6))?.upTo).toEqual(upTo('0\x7f'))
    expect(beginning('lastSeenAt', 5, '*', undefined, early(MAX_GATHERED + 1, 1e6))).toBeUndefined()
    expect(beginning('lastSeenAt', 5, '*', undefined, early(100, 100 * (CANDIDATE_COST - 1)))?.upTo).toEqual(
      upTo('0\x7f'),
    )
    expect(beginning('lastSeenAt', 5, '*', undefined, early(101, 100 * (CANDIDATE_COST - 1)))).toBeUndefined()
  })

  it('looks among the devices that have no time too', () => {
    const odd = (devices: number) => counted(MOST, ...SILENT, { devices, lastSeenAt: 'never' })
    expect(beginning('lastSeenAt', 40, '*', undefined, odd(3))).toEqual({
      ranges: [
        { from: 'l\0', to: `${slot(0)}\x01` },
        { from: '!odd\0', to: '!odd\x01' },
      ],
      upTo: upTo('0\x7f'),
    })
    expect(beginning('lastSeenAt', 40, '*', undefined, odd(MAX_GATHERED - 40))).toBeDefined()
    expect(beginning('lastSeenAt', 40, '*', undefined, odd(MAX_GATHERED - 39))).toBeUndefined()
    const all = counted({ devices: 50, lastSeenAt: 'never' })
    expect(beginning('lastSeenAt', 5, '*', undefined, all)).toBeUndefined()
  })

  it.each([
    ['lastSeenAt', 'lastSeenAt:<2026-11-24T10:00:00Z AND connectivity.state:offline'],
    ['lastSeenAt', 'lastSeenAt:<2026-11-24T10:00:00Z OR lastSeenAt:>2026-11-24T11:00:00Z'],
    ['lastSeenAt', 'NOT lastSeenAt:<2026-11-24T10:00:00Z'],
    ['lastSeenAt', 'lastSeenAt:2026-*:05*'],
    ['lastSeenAt', 'firstSeenAt:<2026-11-24T10:00:00Z'],
    ['firstSeenAt', 'lastSeenAt:<2026-11-24T10:00:00Z'],
    ['deviceId', 'lastSeenAt:<2026-11-24T10:00:00Z'],
  ])('is none when in the order of %s more is asked: %s', (sort, q) => {
    expect(beginning(sort, 5, q)).toBeUndefined()
  })

  it.each([[sortKey(5)], [sortKey(undefined)], [sortKey(null)]])('is none after what has no time: %j', (key) => {
    expect(beginning('lastSeenAt', 5, '*', key)).toBeUndefined()
  })

  it('is none when there were too many times to count', () => {
    const times = Array.from({ length: 5_000 }, (_, i) => new Date(i * 600_000).toISOString())
    const counts = counted(MOST, ...times.map((lastSeenAt) => ({ devices: 1, lastSeenAt })))
    expect(counts.all('h')).toBeUndefined()
    expect(beginning('lastSeenAt', 5, '*', undefined, counts)).toBeUndefined()
  })
})
