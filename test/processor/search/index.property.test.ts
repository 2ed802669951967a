import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Field, parseField } from '../../../processor/contract/field.ts'
import { parseOrder, sortKey } from '../../../processor/contract/order.ts'
import type { Place, Query } from '../../../processor/contract/search.ts'
import type { Status } from '../../../processor/contract/status.ts'
import { Turns } from '../../../processor/runtime/turns.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { StoredFields } from '../../../processor/search/language/stored-fields.ts'
import { Searcher } from '../../../processor/search/searcher.ts'
import type { LevelStore } from '../../../processor/store/level-store.ts'
import { encodeStatus } from '../../status-model.ts'
import { anyStep, IDS, stored, World } from './index-world.ts'
import { LONG, query, queryOf, statusWith } from './language/queries.ts'

/** By a clock that stands still no slice ends early, however busy the machine is. */
const STILL = () => 0
/** The index is used whatever it costs. */
const EAGER = new Searcher(new Turns(), STILL, { candidateCost: 0, maxRead: 2 })
const ORDERS = ['deviceId', '-deviceId', 'lastSeenAt', '-lastSeenAt', '-attributes.site', 'reported.a'].map((text) =>
  parseOrder(text),
)
const FIELDS = ['connectivity.state', 'attributes.site', 'attributes.tags', 'rev'].map((name) => parseField(name))

interface Asked {
  readonly query: Query
  readonly order: number
  readonly limit: number
  readonly within: string[] | undefined
  readonly by: number[]
}
const all = fc.constant<Query>({ root: { kind: 'all' }, text: '' })
const INDEXED = ['connectivity.state', 'lastSeenAt', 'attributes.site', 'attributes.tags']
const indexedField = fc.constantFrom(...INDEXED).map((name) => parseField(name) as Field)
const state = fc.constant(parseField('connectivity.state') as Field)
const time = fc.constant(parseField('lastSeenAt') as Field)
const asked: fc.Arbitrary<Asked> = fc.record({
  query: fc.oneof(
    { weight: 4, arbitrary: query },
    { weight: 6, arbitrary: queryOf(indexedField) },
    queryOf(state),
    queryOf(time),
    all,
  ),
  order: fc.nat(ORDERS.length - 1),
  limit: fc.integer({ min: 1, max: 5 }),
  within: fc.option(fc.constantFrom(['a'], ['b', 'c'], ['a.', 'k1', 'z']), { nil: undefined }),
  by: fc.uniqueArray(fc.nat(FIELDS.length - 1), { maxLength: 2 }),
})

function searched(store: LevelStore, indexed: boolean) {
  return {
    count: undefined,
    checkpoint: undefined,
    generation: 0,
    index: indexed ? store.index : undefined,
    between: store.between.bind(store),
    getMany: store.getMany.bind(store),
  }
}

async function answers(store: LevelStore, { query: of, order, limit, within, by }: Asked, indexed: boolean) {
  const pages: string[][] = []
  const from = searched(store, indexed)
  const wanted = ORDERS[order] as NonNullable<(typeof ORDERS)[number]>
  let after: Place | undefined
  for (;;) {
    const question = { partition: 0, query: of, within, order: wanted, after, from: undefined, limit }
    const { items, next, settled } = await EAGER.search(from, question)
    expect(settled || next !== undefined).toBe(true)
    pages.push(items.map(({ deviceId }) => deviceId))
    const last = items.at(-1)
    if (last === undefined) break
    after = { deviceId: last.deviceId, key: keyOf(last.status, wanted) }
  }
  const fields = by.map((i) => FIELDS[i] as NonNullable<(typeof FIELDS)[number]>)
  const { summary } = await EAGER.summarize(from, {
    partition: 0,
    query: of,
    within,
    by: fields,
    metrics: [],
    from: undefined,
  })
  const groups = summary.groups.map((group) => JSON.stringify(group)).sort()
  return { pages, devices: summary.devices, groups }
}

function keyOf(status: Uint8Array, { field }: NonNullable<(typeof ORDERS)[number]>): Place['key'] {
  return sortKey(new StoredFields([field]).read(status)[0])
}

describe('an index', () => {
  it('is what would be built anew, and answers as a scan does, whatever was written, failed and forgotten', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(stored, { maxLength: IDS.length }),
        fc.array(anyStep, { maxLength: 12 }),
        fc.array(asked, { minLength: 1, maxLength: 6 }),
        async (fleet, steps, questions) => {
          const world = new World()
          await world.open()
          await world.take({
            kind: 'write',
            writes: fleet.map((of, i) => [IDS[i] as string, of]),
            told: true,
            fails: [],
          })
          for (const each of steps) await world.take(each)
          await world.whole()
          for (const question of questions) {
            expect(await answers(world.store, question, true)).toEqual(await answers(world.store, question, false))
          }
          const kept = await world.contents()
          await world.forget()
          await world.open()
          await world.whole()
          expect(kept).toEqual(await world.contents())
        },
      ),
      { numRuns: 1000 },
    )
  }, 120_000)

  it('finds a device by each of its long values, though it has lost one that is alike', async () => {
    const [one] = fc.sample(statusWith(fc.constant('x')), 1)
    const status = (tags: string[]) => encodeStatus({ ...(one as Status), attributes: { tags } })
    for (const gone of LONG) {
      for (const left of LONG.filter((other) => other !== gone)) {
        const world = new World()
        await world.open()
        for (const tags of [[left, gone], [left]]) {
          await world.take({ kind: 'write', writes: [['a', status(tags)]], told: true, fails: [] })
        }
        const byTag = { query: parseQuery(`attributes.tags:"${left}"`), order: 0, limit: 1, within: undefined, by: [] }
        expect((await answers(world.store, byTag, true)).pages).toEqual([['a'], []])
      }
    }
  })

  it('that is built again is not taken for whole when that is cut short', async () => {
    const world = new World()
    await world.open()
    const [one] = fc.sample(statusWith(fc.constant('x')), 1)
    const writes = ['a', 'b', 'c1'].map((of): [string, Buffer] => [of, encodeStatus(one as Status)])
    await world.take({ kind: 'write', writes, told: true, fails: [] })
    const whole = await world.contents()
    // The last write is made, though it says that it is not, and of the next the disk keeps nothing.
    await world.take({ kind: 'upgrade', slices: 2, fails: [true] })
    await world.take({ kind: 'build', slices: 1, fails: [false] })
    await world.take({ kind: 'reopen' })
    if (world.store.index === undefined) await world.whole()
    expect(await world.contents()).toEqual(whole)
  })
})
