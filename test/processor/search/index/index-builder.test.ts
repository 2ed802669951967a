import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import pino from 'pino'
import { RocksLevel } from 'rocksdb-level'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { StoreCorruptedError } from '../../../../processor/contract/errors.ts'
import { parseOrder } from '../../../../processor/contract/order.ts'
import type { Status } from '../../../../processor/contract/status.ts'
import { RestorePriority } from '../../../../processor/runtime/limiter.ts'
import { Turns } from '../../../../processor/runtime/turns.ts'
import { IndexBuilder } from '../../../../processor/search/index/builder.ts'
import { parseQuery } from '../../../../processor/search/language/parser.ts'
import { Searcher } from '../../../../processor/search/searcher.ts'
import type { LevelStore } from '../../../../processor/store/level-store.ts'
import { LevelStores } from '../../../../processor/store/level-stores.ts'
import { encodeStatus } from '../../../status-model.ts'

const AT = '2026-11-24T10:00:00.000Z'
const META = 'm00000'
/** More than one slice of the building. */
const DEVICES = 1_000
const OFFLINE = 50

function statusOf(i: number): Status {
  return {
    deviceId: idOf(i),
    rev: 1,
    reported: {},
    connectivity: { state: i < OFFLINE ? 'offline' : 'online', since: AT, reason: 'connected', session: 1 },
    firstSeenAt: AT,
    lastSeenAt: AT,
    counters: { messages: 1, late: 0, duplicates: 0, skewed: 0 },
  }
}

const idOf = (i: number): string => `d${String(i).padStart(4, '0')}`

let folder: string
let db: RocksLevel<string, Buffer>
let store: LevelStore
let lines: string[]

async function open(): Promise<void> {
  db = new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
  const identity = { cluster: 'c', telemetry: 't', status: 's', partitions: 1 }
  store = await (await LevelStores.open(db, { identity, logger: pino({ enabled: false }) })).store(0)
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-index-'))
  lines = []
  await open()
  const writes = new Map(Array.from({ length: DEVICES }, (_, i) => [idOf(i), encodeStatus(statusOf(i))]))
  await store.commit(writes, { input: 1, changelog: 1, whole: true, since: 1 }, DEVICES)
})

afterEach(async () => {
  await db.close()
  await rm(folder, { recursive: true })
})

/** As a process of another version would leave the store. */
async function reopenAt(version: number | undefined): Promise<void> {
  const meta = JSON.parse((await db.get(META))?.toString() ?? '') as object
  await db.put(META, Buffer.from(JSON.stringify({ ...meta, index: version })))
  await db.close()
  await open()
}

const atOnce = async () => {}

function builder(): IndexBuilder {
  const logger = pino({}, { write: (line) => lines.push(line) })
  const restorePriority = new RestorePriority(atOnce)
  return new IndexBuilder({ restorePriority, turns: new Turns(), logger, now: Date.now, sleep: atOnce, retryMs: 1 })
}

/** By a clock that stands still no slice ends early, however busy the machine is. */
const STILL = () => 0

async function offline(): Promise<string[]> {
  const query = parseQuery('connectivity.state:offline')
  const order = parseOrder('deviceId') as NonNullable<ReturnType<typeof parseOrder>>
  const question = { partition: 0, query, within: undefined, order, after: undefined, from: undefined, limit: 1_000 }
  const { items } = await new Searcher(new Turns(), STILL).search(store, question)
  return items.map(({ deviceId }) => deviceId)
}

const EXPECTED = Array.from({ length: OFFLINE }, (_, i) => idOf(i))

test('a store that is new has its index, over a restart too', async () => {
  expect(store.indexMissing).toBe(false)
  await db.close()
  await open()
  expect(store.indexMissing).toBe(false)
  expect(store.index?.counts.get('s', 'offline')).toBe(OFFLINE)
  expect(await offline()).toEqual(EXPECTED)
})

test.each([[undefined], [0]])('an index of version %s is built anew, while searches scan', async (version) => {
  await reopenAt(version)
  expect(store.index).toBeUndefined()
  expect(await offline()).toEqual(EXPECTED)
  await using building = builder()
  building.take(0, store)
  await vi.waitFor(() => expect(lines.join()).toContain('index whole'), { timeout: 10_000 })
  expect(lines.join()).toContain('index begun')
  expect(store.index?.counts.get('s', 'offline')).toBe(OFFLINE)
  expect(await offline()).toEqual(EXPECTED)
})

test('what was in the index of another version is gone from the new one', async () => {
  await db.put(`i00000:s\0offline\0${idOf(OFFLINE)}`, Buffer.alloc(0))
  await reopenAt(0)
  await using building = builder()
  building.take(0, store)
  await vi.waitFor(() => expect(store.index).toBeDefined(), { timeout: 10_000 })
  const [ids] = (await store.index?.read([{ from: 's\0offline\0', to: 's\0offline\x01' }], DEVICES, false)) ?? []
  expect(ids).toEqual(EXPECTED)
})

test('a store keeps no index while it is filled, and is given one when it is whole', async () => {
  await store.wipe()
  const writes = Array.from({ length: DEVICES }, (_, i) => [idOf(i), encodeStatus(statusOf(i))] as const)
  const half = DEVICES / 2
  await store.commit(new Map(writes.slice(0, half)), { input: 0, changelog: 1, whole: false, since: 1 }, half)
  expect(store.index).toBeUndefined()
  expect(store.indexMissing).toBe(false)
  expect(await db.keys({ gte: 'i', lt: 'j' }).all()).toEqual([])
  expect(await offline()).toHaveLength(Math.min(half, OFFLINE))
  await store.commit(new Map(writes.slice(half)), { input: 2, changelog: 2, whole: true, since: 1 }, DEVICES - half)
  expect(store.indexMissing).toBe(true)
  await using building = builder()
  building.take(0, store)
  building.take(0, store)
  await vi.waitFor(() => expect(store.index).toBeDefined(), { timeout: 10_000 })
  expect(await offline()).toEqual(EXPECTED)
  expect(lines.filter((line) => line.includes('index begun'))).toHaveLength(1)
})

test('a building that ends before it is whole begins again with the next process', async () => {
  await reopenAt(undefined)
  expect(await store.buildIndex()).toBe(false)
  await db.close()
  await open()
  expect(store.index).toBeUndefined()
  expect(store.indexMissing).toBe(true)
})

test('a store that cannot be written now is tried again', async () => {
  await reopenAt(undefined)
  let failures = 2
  const batch = db.batch.bind(db) as unknown as () => object
  Object.assign(db, {
    batch: () => {
      if (failures-- > 0) throw Object.assign(new Error('no space'), { code: 'LEVEL_IO_ERROR' })
      return batch()
    },
  })
  await using building = builder()
  building.take(0, store)
  await vi.waitFor(() => expect(lines.join()).toContain('index whole'), { timeout: 10_000 })
  expect(lines.filter((line) => line.includes('beginning again'))).toHaveLength(2)
})

test('a store that is damaged keeps no other one from its index', async () => {
  await reopenAt(undefined)
  let tries = 0
  const buildIndex = async () => {
    tries++
    await turn()
    throw new StoreCorruptedError('bad block')
  }
  await using building = builder()
  building.take(1, { indexMissing: true, buildIndex } as unknown as LevelStore)
  building.take(0, store)
  await vi.waitFor(() => expect(store.index).toBeDefined(), { timeout: 10_000 })
  expect(tries).toBe(1)
  expect(lines.join()).toContain('the store is damaged')
})
