import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { searchFleet } from '../../../api/search/fleet-search.ts'
import { type Field, parseField } from '../../../processor/contract/field.ts'
import type { Json } from '../../../processor/contract/json.ts'
import { compareInOrder, type Order, parseOrder, sortKey } from '../../../processor/contract/order.ts'
import type { Freshness } from '../../../processor/contract/query.ts'
import {
  type Place,
  printQuery,
  type Query,
  type QueryNode,
  type SearchQuestion,
} from '../../../processor/contract/search.ts'
import type { Status } from '../../../processor/contract/status.ts'
import { Limiter } from '../../../processor/runtime/limiter.ts'
import { Turns } from '../../../processor/runtime/turns.ts'
import { Matcher } from '../../../processor/search/language/match.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Searcher } from '../../../processor/search/searcher.ts'
import { World } from './index-world.ts'

/** Ten minutes that have several devices, some with one, and what no index has by its time: some beside an end of ten minutes. */
const TIMES = ['10:00:00', '10:04:00', '10:09:59', '10:10:00', '10:20:00', '10:25:00', '11:00:00', '12:30:00']
const SEEN = TIMES.map((time) => `2026-11-24T${time}.000Z`)
const ODD: (Json | undefined)[] = [
  undefined,
  null,
  5,
  true,
  {},
  'never',
  '',
  '2026-11-24T10:0',
  '2026-11-24T10:0\x7f',
  '2026-11-24T10:1é',
  '2026-11-24T10:20:00Z',
]
/** By a clock that stands still no slice ends early, however busy the machine is. */
const STILL = () => 0
const ORDERS = ['lastSeenAt', '-lastSeenAt'].map((text) => parseOrder(text) as Order)
const IDS = Array.from({ length: 14 }, (_, i) => `${i % 3 === 0 ? 'a' : 'b'}${String(i).padStart(2, '0')}`)

type Seen = Json | undefined
const seen: fc.Arbitrary<Seen> = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom(...SEEN) },
  fc.constantFrom<Seen>(...ODD),
)

const field = parseField('lastSeenAt') as Field
const text = fc.constantFrom(...SEEN, '2026-11-24', '2026-11-24T10:15:00Z', '2026-11-24T10:0', '5')
const bound = fc.option(fc.record({ text, quoted: fc.boolean(), inclusive: fc.boolean() }), { nil: undefined })
const range: fc.Arbitrary<QueryNode> = fc
  .record({ kind: fc.constant('range' as const), field: fc.constant(field), low: bound, high: bound })
  .filter(({ low, high }) => low !== undefined || high !== undefined)
const query: fc.Arbitrary<Query> = fc
  .oneof<fc.Arbitrary<QueryNode>[]>(
    fc.constant({ kind: 'all' }),
    fc.constant({ kind: 'all' }),
    range,
    fc.tuple(range, range).map((nodes) => ({ kind: 'and', nodes })),
    text.map((of) => ({ kind: 'equals', field, value: { text: of, quoted: false } })),
  )
  .map((root) => ({ root, text: printQuery({ root }) }))

interface Change {
  readonly deviceId: string
  /** Null: it is no more. */
  readonly to: { readonly seen: Seen } | null
}
const change: fc.Arbitrary<Change> = fc.record({
  deviceId: fc.constantFrom(...IDS),
  to: fc.option(fc.record({ seen }), { freq: 8 }),
})

function encoded(deviceId: string, lastSeenAt: Seen): Buffer {
  return Buffer.from(JSON.stringify({ deviceId, connectivity: { state: 'online' }, lastSeenAt }))
}

/** A fleet in which what is planned happens just before statuses are read that an index named. */
class Fleet {
  readonly partitionCount: number
  readonly #worlds: readonly World[]
  readonly #plan: (readonly Change[])[]
  readonly #searcher: Searcher
  readonly #writing = new Limiter(1)

  constructor(partitions: number, plan: readonly (readonly Change[])[], slow: boolean) {
    this.partitionCount = partitions
    this.#worlds = Array.from({ length: partitions }, () => new World())
    this.#plan = [...plan]
    let now = 0
    // Slow: every slice ends after its first read.
    const clock = () => (slow ? (now += 300) : now)
    this.#searcher = new Searcher(new Turns(), clock, { candidateCost: 0, maxRead: 2 })
  }

  async open(devices: ReadonlyMap<string, Seen>): Promise<void> {
    for (const world of this.#worlds) await world.open()
    await this.#make(Array.from(devices, ([deviceId, of]) => ({ deviceId, to: { seen: of } })))
  }

  async goOn(): Promise<void> {
    await this.#writing.run(() => this.#make(this.#plan.shift() ?? []))
  }

  async #make(changes: readonly Change[]): Promise<void> {
    for (const { deviceId, to } of changes) {
      const written = to === null ? null : encoded(deviceId, to.seen)
      const world = this.#worlds[IDS.indexOf(deviceId) % this.partitionCount] as World
      await world.take({ kind: 'write', writes: [[deviceId, written]], told: true, fails: [] })
    }
  }

  async search(question: SearchQuestion) {
    const { store } = this.#worlds[question.partition] as World
    const searched = {
      count: undefined,
      checkpoint: undefined,
      generation: 0,
      index: store.index,
      between: store.between.bind(store),
      getMany: async (ids: readonly string[]) => {
        await this.goOn()
        return store.getMany(ids)
      },
    }
    const slice = await this.#searcher.search(searched, question)
    // Whoever puts slices together goes on after the last of the items.
    if (slice.more) expect(slice.items.length).toBeGreaterThan(0)
    return { ...slice, freshness: {} as Freshness }
  }
}

describe('a list in the order of the times seen last', () => {
  it('has every device that stays where it is once, in its place, whatever the others do meanwhile', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(seen, { minLength: 6, maxLength: IDS.length }),
        fc.oneof(
          fc.constant([]),
          fc.array(fc.array(change, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 6 }),
        ),
        query,
        fc.constantFrom(...ORDERS),
        fc.record({
          partitions: fc.constantFrom(1, 2),
          limit: fc.integer({ min: 1, max: 3 }),
          within: fc.option(fc.constant(['a']), { nil: undefined, freq: 6 }),
          slow: fc.boolean(),
        }),
        async (times, plan, of, order, { partitions, limit, within, slow }) => {
          const devices = new Map(times.map((time, i) => [IDS[i] as string, time]))
          const fleet = new Fleet(partitions, plan, slow)
          await fleet.open(devices)
          const matcher = new Matcher(of)
          const changing = new Set(plan.flat().map(({ deviceId }) => deviceId))
          const compare = (a: Place, b: Place) => compareInOrder(order.descending, a.key, a.deviceId, b.key, b.deviceId)
          const steady = Array.from(devices, ([deviceId, time]) => ({ deviceId, key: sortKey(time), time }))
            .filter(({ deviceId, time }) => matcher.matches({ deviceId, lastSeenAt: time } as unknown as Status))
            .filter(({ deviceId }) => !changing.has(deviceId) && (within === undefined || deviceId.startsWith('a')))
            .sort(compare)
          for (let after: Place | undefined; ; ) {
            const page = await searchFleet(fleet, { query: of, within, order, after, limit, isOver: () => false })
            const items: Place[] = page.items.map(({ deviceId, key }) => ({ deviceId, key }))
            expect(items).toEqual(items.toSorted(compare))
            expect(page.complete).toBe(true)
            if (page.next !== undefined) expect(items).toHaveLength(limit)
            const due = steady.filter((device) => {
              if (after !== undefined && compare(device, after) <= 0) return false
              return page.next === undefined || compare(device, page.next) <= 0
            })
            const given = items.filter(({ deviceId }) => !changing.has(deviceId))
            expect(given.map(({ deviceId }) => deviceId)).toEqual(due.map(({ deviceId }) => deviceId))
            if (page.next === undefined) break
            after = page.next
            await fleet.goOn()
          }
        },
      ),
      { numRuns: 3000 },
    )
  }, 120_000)
})

const HOUR = 3600_000
const NOW = Date.parse('2026-11-24T12:00:00.000Z')

function ago(ms: number): string {
  return new Date(NOW - ms).toISOString()
}

function idOf(i: number): string {
  return `d${String(i).padStart(4, '0')}`
}

describe('the devices that have been silent the longest', () => {
  const [order] = ORDERS as [Order]

  /** 2,000 devices, every twentieth of which is silent, one longer than the other. */
  async function silent() {
    const world = new World()
    await world.open()
    const writes = Array.from({ length: 2_000 }, (_, i): [string, Buffer] => {
      return [idOf(i), encoded(idOf(i), ago(i % 20 === 0 ? 2 * HOUR + (i * HOUR) / 100 : 0))]
    })
    await world.take({ kind: 'write', writes, told: true, fails: [] })
    return world
  }

  it.each([['*'], [`lastSeenAt:<${ago(HOUR)}`], [`lastSeenAt:<${ago(HOUR)} AND lastSeenAt:>2026-11-01`]])(
    'of %s are found without a look at the others',
    async (q) => {
      const { store } = await silent()
      const read: string[] = []
      const searched = {
        count: undefined,
        checkpoint: undefined,
        generation: 0,
        index: store.index,
        between: () => {
          throw new Error('all are looked at')
        },
        getMany: (ids: readonly string[]) => {
          read.push(...ids)
          return store.getMany(ids)
        },
      }
      const searcher = new Searcher(new Turns(), STILL)
      const question = { partition: 0, query: parseQuery(q), within: undefined, order, from: undefined, limit: 10 }
      const pages: string[] = []
      for (let after: Place | undefined; pages.length < 100; ) {
        const { items, more } = await searcher.search(searched, { ...question, after })
        expect(more).toBe(pages.length < 90 || q === '*')
        pages.push(...items.map(({ deviceId }) => deviceId))
        const { lastSeenAt } = JSON.parse(Buffer.from(items.at(-1)?.status as Uint8Array).toString()) as Status
        after = { deviceId: pages.at(-1) as string, key: sortKey(lastSeenAt) }
      }
      expect(pages).toEqual(Array.from({ length: 100 }, (_, i) => idOf(1_980 - 20 * i)))
      // One at each end of a page is looked at twice, or three times.
      expect(read.length).toBeLessThan(130)
    },
  )

  it('are never one that has come back meanwhile, before others that have not', async () => {
    const at = { a: ago(3 * HOUR), b: ago(3 * HOUR), c: ago(2 * HOUR), d: ago(0) }
    const asked = async (limit: number, back: readonly string[]) => {
      const world = new World()
      await world.open()
      const writes = Object.entries(at).map(([id, time]): [string, Buffer] => [id, encoded(id, time)])
      await world.take({ kind: 'write', writes, told: true, fails: [] })
      const { store } = world
      const getMany = async (ids: readonly string[]) => {
        const moved = back.map((id): [string, Buffer] => [id, encoded(id, ago(HOUR))])
        await world.take({ kind: 'write', writes: moved, told: true, fails: [] })
        return store.getMany(ids)
      }
      const searched = { count: undefined, checkpoint: undefined, generation: 0, index: store.index, getMany }
      const searcher = new Searcher(new Turns(), STILL, { candidateCost: 0 })
      const question = { partition: 0, query: parseQuery('*'), within: undefined, order, after: undefined }
      const { items, more } = await searcher.search(
        { ...searched, between: store.between.bind(store) },
        { ...question, from: undefined, limit },
      )
      return [items.map(({ deviceId }) => deviceId), more]
    }
    expect(await asked(2, [])).toEqual([['a', 'b'], true])
    expect(await asked(2, ['a'])).toEqual([['b'], true])
    expect(await asked(2, ['a', 'b'])).toEqual([['c', 'a'], true])
  })

  it('are asked for again of all partitions that gave few of them, at once', async () => {
    let [asking, most] = [0, 0]
    const again: number[] = []
    const reader = {
      partitionCount: 3,
      search: async ({ partition, after }: SearchQuestion) => {
        const first = after === undefined
        if (!first) {
          again.push(partition)
          most = Math.max(most, ++asking)
          await new Promise(setImmediate)
          asking--
        }
        const [from, to] = first ? [0, partition === 2 ? 9 : 1] : [1, 9]
        const items = Array.from({ length: to - from }, (_, i) => {
          const deviceId = `p${partition}-${from + i}`
          return { deviceId, status: encoded(deviceId, ago(HOUR - from - i)) }
        })
        return { items, settled: true, more: first, next: undefined, freshness: {} as Freshness }
      },
    }
    const options = { query: parseQuery('*'), within: undefined, order, after: undefined, isOver: () => false }
    const { items } = await searchFleet(reader, { ...options, limit: 9 })
    expect(items.map(({ deviceId }) => deviceId)).toEqual(
      Array.from({ length: 9 }, (_, i) => `p${i % 3}-${Math.floor(i / 3)}`),
    )
    expect(most).toBe(2)
    expect(again).toEqual([0, 1])
  })
})
