import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { decodeCursor, encodeCursor, searchFleet, summarizeFleet } from '../../../api/search/fleet-search.ts'
import { type Field, parseField, valueOf } from '../../../processor/contract/field.ts'
import type { Json } from '../../../processor/contract/json.ts'
import { compareInOrder, type Order, sortKey } from '../../../processor/contract/order.ts'
import type { Place, Query, SearchQuestion, SummaryQuestion } from '../../../processor/contract/search.ts'
import type { Status } from '../../../processor/contract/status.ts'
import { Turns } from '../../../processor/runtime/turns.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Searcher } from '../../../processor/search/searcher.ts'
import * as wire from '../../../processor/search/wire.ts'
import { World } from '../../processor/search/index-world.ts'
import { naiveMatches } from '../../processor/search/language/naive-query.ts'
import { field, query, queryOf, statusWith } from '../../processor/search/language/queries.ts'
import { encodeStatus } from '../../status-model.ts'

const IDS = ['-', '0', 'A', 'a', 'a.b', 'a:b', 'b', 'b0', 'ba', 'c1', 'c2', 'k1', 'k2', 'z', 'zz']
const INDEXED = ['connectivity.state', 'lastSeenAt', 'attributes.site', 'attributes.tags']
const indexed = fc.constantFrom(...INDEXED).map((name) => parseField(name) as Field)
const ordering = fc.constantFrom('deviceId', 'lastSeenAt').map((name) => parseField(name) as Field)
const WORDS = ['k1', 'k2', 'on*', 'o*', '(online OR offline)', '5', '>=2026-11-24T10\\:00\\:00.500Z', '*']
const TIMES = [
  '2026-11-24',
  '(2026-11-25 OR >2026-11-25)',
  '<=2026-11-24T10',
  '2026-11-2*',
  '>=2026-11-24T10\\:00\\:00.500Z',
  '*',
]
const simple = fc
  .tuple(fc.boolean(), fc.constantFrom(...INDEXED), fc.constantFrom(...WORDS), fc.constantFrom(...TIMES))
  .map(([not, name, word, time]) => parseQuery(`${not ? 'NOT ' : ''}${name}:${name === 'lastSeenAt' ? time : word}`))
const some = (of: fc.Arbitrary<Field>, maxLength: number) =>
  fc.uniqueArray(of, { maxLength, selector: ({ name }) => name })
/** `written`: another program wrote the status of another device, so that readers have the id alone. */
type Device = { readonly status: Status; readonly written?: Status }
/** Undefined: it is gone. */
type Devices = readonly (Device | undefined)[]
const NOTHING = { reported: {}, connectivity: {}, counters: {} } as Status
const deviceOf = (deviceId: string): fc.Arbitrary<Device> =>
  fc.oneof(
    { weight: 6, arbitrary: statusWith(fc.constant(deviceId)).map((status) => ({ status })) },
    statusWith(fc.constant('other')).map((written) => ({ status: { ...NOTHING, deviceId }, written })),
  )
const devices: fc.Arbitrary<Devices> = fc.tuple(
  ...IDS.map((id) => fc.option(deviceOf(id), { freq: 10, nil: undefined })),
)
const all = fc.constant<Query>({ root: { kind: 'all' }, text: '' })
const asked = fc.record({
  query: fc.oneof(query, simple, simple, queryOf(indexed), all, all),
  order: fc
    .tuple(fc.oneof(field, ordering), fc.boolean())
    .map(([of, descending]): Order => ({ field: of, descending })),
  limit: fc.constantFrom(1, 1, 2, 3, 6),
  within: fc.option(fc.constantFrom(['a'], ['0', 'b', 'z'], ['a.', 'k1']), { freq: 1, nil: undefined }),
  by: fc.oneof(some(field, 3), some(indexed, 1), fc.constant([])),
  metrics: fc.oneof(some(field, 2), fc.constant([]), fc.constant([])),
})
type Asked = typeof asked extends fc.Arbitrary<infer T> ? T : never
const world = fc.record({
  partitions: fc.constantFrom(1, 1, 2, 3),
  /** Every slice ends after its first read. */
  slow: fc.boolean(),
  maxRead: fc.constantFrom(1, 2, 8),
  candidateCost: fc.constantFrom(0, 0.3, 4),
  /** Of one question after the other, whether the copy that is asked has an index, and knows how many devices it has. */
  indexes: fc.array(fc.boolean(), { minLength: 1, maxLength: 3 }),
})

/** Answers as processors do, and as their answers are read. */
class Fleet {
  readonly partitionCount: number
  readonly #worlds: readonly World[]
  readonly #searcher: Searcher
  readonly #indexes: readonly boolean[]
  #asked = 0

  constructor({ partitions, slow, indexes, ...options }: typeof world extends fc.Arbitrary<infer T> ? T : never) {
    this.partitionCount = partitions
    this.#worlds = Array.from({ length: partitions }, () => new World())
    let now = 0
    this.#searcher = new Searcher(new Turns(), () => (slow ? (now += 300) : now), options)
    this.#indexes = indexes
  }

  async open(...states: Devices[]): Promise<void> {
    for (const each of this.#worlds) await each.open()
    for (const state of states) {
      for (const [partition, each] of this.#worlds.entries()) {
        const writes = IDS.map((id, i): [string, Buffer | null] => {
          const device = state[i]
          return [id, device === undefined ? null : encodeStatus(device.written ?? device.status)]
        })
        const own = writes.filter((_, i) => i % this.partitionCount === partition)
        await each.take({ kind: 'write', writes: own, told: true, fails: [] })
      }
    }
  }

  async search(question: SearchQuestion) {
    const crossed = wire.decodeSearchQuestion(wire.encodeSearchQuestion(question))
    const slice = await this.#searcher.search(this.#searched(question.partition), crossed)
    const bytes = wire.encodeSearchSlice({ ...slice, freshness: freshnessOf(question) })
    return wire.decodeSearchSlice(Buffer.concat(bytes))
  }

  async summarize(question: SummaryQuestion) {
    const crossed = wire.decodeSummaryQuestion(wire.encodeSummaryQuestion(question))
    const slice = await this.#searcher.summarize(this.#searched(question.partition), crossed)
    const bytes = wire.encodeSummarySlice({ ...slice, freshness: freshnessOf(question) })
    return wire.decodeSummarySlice(Buffer.concat(bytes))
  }

  #searched(partition: number) {
    const { store } = this.#worlds[partition] as World
    const whole = this.#indexes[this.#asked++ % this.#indexes.length]
    return {
      count: whole ? store.count : undefined,
      checkpoint: undefined,
      generation: 0,
      index: whole ? store.index : undefined,
      between: store.between.bind(store),
      getMany: store.getMany.bind(store),
    }
  }
}

function freshnessOf({ partition }: { partition: number }) {
  return { partition, offset: 4, changelog: 4, lag: 0, servedBy: 'owner' as const }
}

type Groups = Map<string, readonly unknown[]>

/** A list counts by each of its elements. */
function elements(value: Json | undefined): (Json | undefined)[] {
  if (!Array.isArray(value) || value.length === 0) return [value]
  return [...new Map(value.map((element) => [JSON.stringify(element), element])).values()]
}

function naiveGroups(matching: readonly Status[], by: readonly Field[], metrics: readonly Field[]): Groups {
  const groups = new Map<string, Status[]>()
  for (const status of matching) {
    let keys = ['']
    for (const each of by) {
      const parts = elements(valueOf(each, status)).map((value) => JSON.stringify(value) ?? 'none')
      keys = keys.flatMap((key) => parts.map((part) => `${key}|${part}`))
    }
    for (const key of keys) groups.set(key, [...(groups.get(key) ?? []), status])
  }
  const counted = Array.from(groups, ([key, members]) => {
    const numbers = metrics.map((each) => members.map((of) => valueOf(each, of)).filter((of) => typeof of === 'number'))
    return [key, [members.length, numbers.map((values) => [values.length, Math.min(...values)])]] as const
  })
  return new Map(counted)
}

async function listed(fleet: Fleet, { query: of, order, limit, within }: Asked): Promise<string[]> {
  const ids: string[] = []
  let after: Place | undefined
  do {
    const page = { query: of, within, order, after, limit, isOver: () => false }
    const { items, next, complete } = await searchFleet(fleet, page)
    expect(complete && items.length <= limit).toBe(true)
    ids.push(...items.map(({ deviceId }) => deviceId))
    after = next && decodeCursor(encodeCursor(next, of, order), of, order)
  } while (after !== undefined)
  return ids
}

async function grouped(fleet: Fleet, { query: of, within, by, metrics }: Asked, matching: number): Promise<Groups> {
  const { summary } = await summarizeFleet(fleet, { query: of, within, by, metrics, isOver: () => false })
  expect(summary.devices).toBe(matching)
  const groups = summary.groups().map((group) => {
    const told = group.metrics.map((each) => [each?.count ?? 0, each?.min ?? Number.POSITIVE_INFINITY])
    return [group.by.map((value) => `|${JSON.stringify(value) ?? 'none'}`).join(''), [group.count, told]] as const
  })
  return new Map(groups)
}

it('is listed and summed up, in parts by several copies, as a plain reading of all its statuses has it', async () => {
  const questions = fc.array(asked, { minLength: 1, maxLength: 5 })
  const property = fc.asyncProperty(world, devices, devices, questions, async (of, before, now, each) => {
    const fleet = new Fleet(of)
    await fleet.open(before, now)
    for (const question of each) {
      const { query: wanted, order, within, by, metrics } = question
      const matching = now
        .flatMap((device) => device?.status ?? [])
        .filter(({ deviceId }) => within === undefined || within.some((prefix) => deviceId.startsWith(prefix)))
        .filter((status) => naiveMatches(wanted.root, status))
      const due = matching
        .map((status) => ({ id: status.deviceId, key: sortKey(valueOf(order.field, status)) }))
        .sort((a, b) => compareInOrder(order.descending, a.key, a.id, b.key, b.id))
      expect(await listed(fleet, question)).toEqual(due.map(({ id }) => id))
      expect(await grouped(fleet, question, matching.length)).toEqual(naiveGroups(matching, by, metrics))
    }
  })
  await fc.assert(property, { numRuns: 80 })
})
