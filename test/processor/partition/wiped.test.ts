import { MemoryLevel } from 'memory-level'
import pino from 'pino'
import { beforeEach, expect, test } from 'vitest'
import { type Order, parseOrder } from '../../../processor/contract/order.ts'
import type { Role } from '../../../processor/partition/role.ts'
import { WriteOutcomes } from '../../../processor/partition/waiters.ts'
import { ForeignStatuses, StoreReader } from '../../../processor/query/store-reader.ts'
import { Turns } from '../../../processor/runtime/turns.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Searcher } from '../../../processor/search/searcher.ts'
import { LevelStores } from '../../../processor/store/level-stores.ts'
import type { StateStore } from '../../../processor/store/store.ts'

const REACHED = { input: 1, changelog: 1, whole: true, since: 1 }
const selected = { partition: 0, query: parseQuery('rev:1'), within: undefined, from: undefined }
const unavailable = { code: 'PARTITION_UNAVAILABLE' }

let store: StateStore
let reader: StoreReader

/** A store that is wiped, whole, between each question and its reads. */
function wipedBeneath(of: StateStore): StateStore {
  const wiped = async <T>(read: () => Promise<T>): Promise<T> => {
    await of.wipe()
    return read()
  }
  return Object.create(of, {
    checkpoint: { get: () => of.checkpoint },
    generation: { get: () => of.generation },
    count: { get: () => of.count },
    index: { value: undefined },
    getMany: { value: (keys: string[]) => wiped(() => of.getMany(keys)) },
    range: { value: (after: string | undefined, limit: number) => wiped(() => of.range(after, limit)) },
    between: {
      value: (...range: Parameters<StateStore['between']>) => ({
        next: (size: number) => wiped(() => of.between(...range).next(size)),
        close: async () => {},
      }),
    },
  }) as StateStore
}

beforeEach(async () => {
  const db = new MemoryLevel<string, Buffer>({ keyEncoding: 'utf8', valueEncoding: 'buffer' })
  const identity = { cluster: 'c', telemetry: 't', status: 's', partitions: 1 }
  const logger = pino({ enabled: false })
  const stores = await LevelStores.open(db as never, { identity, logger, indexed: false })
  store = await stores.store(0)
  await store.commit(new Map([['a', Buffer.from('{"rev":1}')]]), REACHED, 1)
  const role = {
    kind: 'owner',
    state: 'running',
    doubtful: false,
    lag: 0,
    store: wipedBeneath(store),
    copy: { waiters: { applied: async () => true }, outcomes: new WriteOutcomes() },
    cached: (deviceId: string) =>
      deviceId === 'b' ? { buffer: Buffer.from('{"rev":2}'), start: 0, end: 9 } : undefined,
  }
  reader = new StoreReader({
    instance: 'one',
    roles: new Map([[0, role as unknown as Role]]),
    searcher: new Searcher(new Turns(), () => 0),
    foreign: new ForeignStatuses(pino({ enabled: false })),
  })
})

test.each<[string, () => Promise<unknown>]>([
  ['a read', () => reader.getMany(0, ['a'])],
  ['a read past a position', () => reader.getPast({ partition: 0, offset: 0 }, 'a', 0)],
  ['a list', () => reader.list(0, undefined, 10)],
  [
    'a search',
    () => reader.search({ ...selected, order: parseOrder('deviceId') as Order, after: undefined, limit: 10 }),
  ],
  ['a count', () => reader.summarize({ ...selected, by: [], metrics: [] })],
])('%s during which the store is wiped is not answered from what is left', async (_, ask) => {
  await expect(ask()).rejects.toMatchObject(unavailable)
  expect(store.checkpoint).toBeUndefined()
})

test('of many devices, those that were read of the store that was wiped are not known to be unknown', async () => {
  const [stored, atHand] = await reader.getEach(['a', 'b'], [0, 0])
  expect(stored).toMatchObject(unavailable)
  expect(atHand).toMatchObject({ freshness: { offset: 1 } })
})

test('a read that waited for a position is not answered from a store that has less again', async () => {
  const position = { partition: 0, offset: REACHED.input }
  await expect(reader.getPast(position, 'b', 0)).rejects.toMatchObject({ code: 'POSITION_NOT_REACHED' })
  expect(await reader.getPast({ ...position, offset: REACHED.input - 1 }, 'b', 0)).toMatchObject({
    freshness: { offset: 1 },
  })
})
