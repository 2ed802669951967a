import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import pino from 'pino'
import { RocksLevel } from 'rocksdb-level'
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { searchFleet, summarizeFleet } from '../../../api/search/fleet-search.ts'
import { type Field, parseField } from '../../../processor/contract/field.ts'
import { type Order, parseOrder } from '../../../processor/contract/order.ts'
import type { Place, SearchQuestion, SummaryQuestion } from '../../../processor/contract/search.ts'
import type { Status } from '../../../processor/contract/status.ts'
import type { Role } from '../../../processor/partition/role.ts'
import { ForeignStatuses, StoreReader } from '../../../processor/query/store-reader.ts'
import { Turns } from '../../../processor/runtime/turns.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { ScanThreads } from '../../../processor/search/scan-threads.ts'
import { type Held, type Scans, Searcher } from '../../../processor/search/searcher.ts'
import { encodeSearchQuestion, encodeSummaryQuestion } from '../../../processor/search/wire.ts'
import type { LevelStore } from '../../../processor/store/level-store.ts'
import { LevelStores } from '../../../processor/store/level-stores.ts'
import type { Checkpoint } from '../../../processor/store/store.ts'
import { encodeStatus } from '../../status-model.ts'
import { openFiles } from '../rocksdb-level/folder.ts'

const AT = '2026-11-24T10:00:00.000Z'
const PARTITIONS = 3
/** In each partition, and more than are scanned on the event loop. */
const DEVICES = 2_000
const IDLE_MS = 60_000
/** ms, the most a timer takes: how fast a thread is on a busy machine decides nothing here. */
const PATIENT_MS = 2 ** 31 - 1

function statusOf(deviceId: string, rev: number): Status {
  return {
    deviceId,
    rev,
    reported: { level: { value: Number(deviceId.slice(-4)) % 100, at: AT } },
    connectivity: { state: 'online', since: AT, reason: 'connected', session: 1 },
    firstSeenAt: AT,
    lastSeenAt: AT,
    counters: { messages: rev, late: 0, duplicates: 0, skewed: 0 },
  }
}

const idOf = (partition: number, i: number): string => `p${partition}-${String(i).padStart(4, '0')}`

let folder: string
let db: RocksLevel<string, Buffer>
let stores: LevelStore[]
let scans: ScanThreads
let changelog = 1

/** All devices of a partition get the same rev. */
async function commit(partition: number, rev: number, whole = true): Promise<void> {
  const devices = Array.from({ length: DEVICES }, (_, i) => idOf(partition, i))
  const writes = new Map(devices.map((id) => [id, encodeStatus(statusOf(id, rev))]))
  const reached = { input: changelog, changelog: ++changelog, whole, since: 1 }
  await (stores[partition] as LevelStore).commit(writes, reached)
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-scan-'))
  db = new RocksLevel<string, Buffer>(folder, {
    keyEncoding: 'utf8',
    valueEncoding: 'buffer',
    writeBufferSize: 1024 * 1024,
  })
  const logger = pino({ enabled: false })
  const identity = { cluster: 'c', telemetry: 't', status: 's', partitions: PARTITIONS }
  const opened = await LevelStores.open(db, { identity, logger, indexed: false })
  stores = []
  for (let partition = 0; partition < PARTITIONS; partition++) {
    stores.push(await opened.store(partition))
    await commit(partition, 1)
  }
  scans = new ScanThreads({ folder, logger, threads: 2, patienceMs: PATIENT_MS })
})

afterEach(async () => {
  await scans[Symbol.asyncDispose]()
  await db.close()
  await rm(folder, { recursive: true })
})

function freshnessOf(partition: number) {
  const position = (stores[partition] as LevelStore).checkpoint?.changelog ?? 0
  return { partition, offset: position, changelog: position, lag: 0, servedBy: 'owner' as const }
}

/** Of partition 0. */
function held(reached: number): Held {
  return { generation: (stores[0] as LevelStore).generation, reached }
}

/** All partitions, asked as the API asks. */
function fleet(searcher: Searcher) {
  return {
    partitionCount: PARTITIONS,
    search: async (question: SearchQuestion) => {
      const marked = { freshness: freshnessOf(question.partition) }
      return { ...(await searcher.search(stores[question.partition] as LevelStore, question)), ...marked }
    },
    summarize: async (question: SummaryQuestion) => {
      const marked = { freshness: freshnessOf(question.partition) }
      return { ...(await searcher.summarize(stores[question.partition] as LevelStore, question)), ...marked }
    },
  }
}

const isOver = () => false
const now = () => performance.now()

async function ids(searcher: Searcher, q: string, sort: string): Promise<string[]> {
  const order = parseOrder(sort) as Order
  const found: string[] = []
  for (let after: Place | undefined; ; ) {
    const question = { query: parseQuery(q), within: undefined, order, after, limit: 40, isOver }
    const { items, next, complete } = await searchFleet(fleet(searcher), question)
    expect(complete).toBe(true)
    found.push(...items.map(({ deviceId }) => deviceId))
    if (next === undefined) return found
    after = next
  }
}

async function count(searcher: Searcher, q: string): Promise<number> {
  const question = { query: parseQuery(q), within: undefined, by: [], metrics: [], isOver }
  return (await summarizeFleet(fleet(searcher), question)).summary.devices
}

test('searches and counts give the same as on the event loop', async () => {
  const [here, there] = [new Searcher(new Turns(), now), new Searcher(new Turns(), now, { scans })]
  const rare = 'reported.level:7'
  for (const sort of ['deviceId', '-deviceId', '-reported.level']) {
    const expected = await ids(here, rare, sort)
    expect(expected).toHaveLength((PARTITIONS * DEVICES) / 100)
    expect(await ids(there, rare, sort)).toEqual(expected)
  }
  for (const q of [rare, 'reported.level:<50', 'NOT reported.level:*']) {
    expect(await count(there, q)).toBe(await count(here, q))
  }
})

/** The patience of `threads`, of `ms`, is over before a thread can answer what it is asked for the first time. */
function late(threads: ScanThreads, ms: number): Scans {
  // The event loop does not turn between the question and this, so no answer of a thread can come first.
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const asked = new Set<string>()
  const lateOnce = <T>(key: string, answer: Promise<T>): Promise<T> => {
    if (!asked.has(key)) vi.advanceTimersByTime(ms)
    asked.add(key)
    return answer
  }
  return {
    search: (search, at) =>
      lateOnce(encodeSearchQuestion({ ...search, reached: at.reached }), threads.search(search, at)),
    summarize: (summary, at) =>
      lateOnce(encodeSummaryQuestion({ ...summary, reached: at.reached }), threads.summarize(summary, at)),
  }
}

test('slices that are not there in time are asked for again', async () => {
  const patienceMs = 400
  await using threads = new ScanThreads({ folder, logger: pino({ enabled: false }), threads: 1, patienceMs })
  const impatient = late(threads, patienceMs)
  const searcher = new Searcher(new Turns(), now, { scans: impatient })
  const summary = { ...question, from: idOf(0, 0) }
  expect(await impatient.summarize(summary, held(0))).toMatchObject({ summary: { devices: 0 }, next: summary.from })
  const search = { ...summary, order: parseOrder('deviceId') as Order, after: undefined, limit: 1 }
  const nothing = { items: [], settled: false, more: false, next: search.from }
  expect(await impatient.search(search, held(0))).toEqual(nothing)
  expect(await count(searcher, 'reported.level:7')).toBe((PARTITIONS * DEVICES) / 100)
  expect(await ids(searcher, 'reported.level:7', '-reported.level')).toHaveLength((PARTITIONS * DEVICES) / 100)
})

test('a scan holds what was committed before it began', async () => {
  const searcher = new Searcher(new Turns(), now, { scans })
  for (let rev = 2; rev < 12; rev++) {
    for (let partition = 0; partition < PARTITIONS; partition++) await commit(partition, rev)
    expect(await count(searcher, `counters.messages:${rev}`)).toBe(PARTITIONS * DEVICES)
  }
})

const question = { partition: 0, query: parseQuery('*'), within: undefined, by: [], metrics: [], from: '' }

test('what no copy here has reached is answered from what there is', async () => {
  let devices = 0
  // A thread that gets little of the machine examines few devices in the time of a slice.
  for (let from: string | undefined = question.from; from !== undefined; ) {
    const slice = await scans.summarize({ ...question, from }, held(1_000_000))
    devices += slice.summary.devices
    from = slice.next
  }
  expect(devices).toBe(DEVICES)
})

test('a copy that is not whole is not scanned', async () => {
  await commit(0, 2, false)
  await expect(scans.summarize(question, held(changelog))).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
})

test.each(['deviceId', '-reported.level'])('by %s, no memory is held or sent but of what is found', async (sort) => {
  const search = { ...question, order: parseOrder(sort) as Order, after: undefined, limit: 1_001 }
  const searcher = new Searcher(new Turns(), () => 0)
  const here = await searcher.search(stores[0] as LevelStore, { ...search, query: parseQuery('reported.level:7') })
  expect(here.items).toHaveLength(DEVICES / 100)
  for (const { status } of here.items) expect(status.buffer.byteLength).toBe(status.byteLength)
  const { items } = await scans.search({ ...search, query: parseQuery('reported.level:*') }, held(changelog))
  const sent = new Set(items.map(({ status }) => status.buffer))
  const bytes = items.reduce((sum, { status }) => sum + status.byteLength, 0)
  expect(bytes).toBeGreaterThan(0)
  expect(Array.from(sent, ({ byteLength }) => byteLength)).toEqual([bytes])
})

test('an answer claims no position that the view it was read of does not include', async () => {
  const searcher = new Searcher(new Turns(), now, { scans })
  const store = stores[0] as LevelStore
  const role = { kind: 'owner', state: 'running', doubtful: false, lag: 3, store } as unknown as Role
  const foreign = new ForeignStatuses(pino({ enabled: false }))
  const reader = new StoreReader({ instance: 'one', roles: new Map([[0, role]]), searcher, foreign })
  const reached = store.checkpoint?.changelog
  const asked = { ...question, query: parseQuery('reported.level:*'), reached }
  const search = { ...asked, order: parseOrder('deviceId') as Order, after: undefined, limit: 1 }
  const summary = { ...asked, by: [parseField('rev') as Field] }
  const checkpoints = new Map([[1, store.checkpoint as Checkpoint]])
  await reader.search(search)
  await commit(0, 2)
  checkpoints.set(2, store.checkpoint as Checkpoint)
  const end = store.checkpoint?.input as number
  const freshnessAt = (rev: number) => {
    const at = checkpoints.get(rev) as Checkpoint
    return { partition: 0, offset: at.input, changelog: at.changelog, lag: 3 + end - at.input, servedBy: 'owner' }
  }
  const found = await reader.search(search)
  const summed = await reader.summarize(summary)
  // It is the view of the first question, unless the machine stood still meanwhile.
  const { rev } = JSON.parse(Buffer.from(found.items[0]?.status as Uint8Array).toString())
  expect(found.freshness).toEqual(freshnessAt(rev))
  expect(summed.freshness).toEqual(freshnessAt(summed.summary.groups[0]?.values[0] as number))
})

test('a view from before a wipe is not scanned, though it held as much', async () => {
  const searcher = new Searcher(new Turns(), now, { scans })
  expect(await count(searcher, 'reported.level:*')).toBe(PARTITIONS * DEVICES)
  const store = stores[0] as LevelStore
  const reached = store.checkpoint as Checkpoint
  await store.wipe()
  await store.commit(new Map([['p0-0007', encodeStatus(statusOf('p0-0007', 1))]]), reached)
  expect((await scans.summarize(question, held(reached.changelog))).summary.devices).toBe(1)
})

test('a folder that is gone fails what is asked, and nothing else', async () => {
  const options = { folder: join(folder, 'none'), logger: pino({ enabled: false }), patienceMs: PATIENT_MS }
  await using elsewhere = new ScanThreads(options)
  for (let i = 0; i < 2; i++) {
    await expect(elsewhere.summarize(question, held(0))).rejects.toThrow(
      /^the store cannot be scanned now: .*none does not exist/,
    )
  }
})

test('why scans fail is told, and not for each of them', async () => {
  const lines: string[] = []
  const logger = pino({}, { write: (line) => lines.push(line) })
  await using elsewhere = new ScanThreads({ folder: join(folder, 'none'), logger, patienceMs: PATIENT_MS })
  for (let i = 0; i < 3; i++) await expect(elsewhere.summarize(question, held(0))).rejects.toThrow()
  expect(lines.map((line) => JSON.parse(line))).toEqual([
    expect.objectContaining({
      level: 40,
      partition: 0,
      err: expect.objectContaining({ message: expect.stringMatching(/none does not exist/) }),
    }),
  ])
})

test('a thread that cannot be started is a reason to ask again, and is told', async () => {
  const lines: string[] = []
  const logger = pino({}, { write: (line) => lines.push(line) })
  await using refused = new ScanThreads({ folder, logger, patienceMs: PATIENT_MS })
  // As where the system has no thread to give, a Worker throws.
  vi.spyOn(URL.prototype, 'href', 'get').mockImplementationOnce(() => {
    throw new Error('ERR_WORKER_INIT_FAILED')
  })
  onTestFinished(() => void vi.restoreAllMocks())
  await expect(refused.summarize(question, held(0))).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
  expect(lines).toHaveLength(1)
  expect((await refused.summarize(question, held(changelog))).summary.devices).toBeGreaterThan(0)
})

test.runIf(process.platform === 'linux')('a store that cannot be read is not left open by those who try', async () => {
  await db.put('m00009', Buffer.from('no checkpoint'))
  await db.flush()
  for (let i = 0; i < 3; i++) {
    await expect(scans.summarize(question, held(0))).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
  }
  // The one that writes has each table open, and a compaction one that it writes once more.
  await vi.waitFor(async () => {
    const tables = (await openFiles(folder)).filter((file) => file.endsWith('.sst'))
    expect(tables).not.toEqual([])
    expect(tables.toSorted()).toEqual([...new Set(tables)].toSorted())
  })
})

test('a thread is ended when it was idle for its time, and not while it works', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const starting = once(process, 'worker') as Promise<[Worker]>
  const asked = scans.summarize(question, held(changelog))
  // The event loop does not turn before this, so no answer of the thread can have come.
  vi.advanceTimersByTime(IDLE_MS)
  expect((await asked).summary.devices).toBeGreaterThan(0)
  const [thread] = await starting
  const ended = once(thread, 'exit')
  vi.advanceTimersByTime(IDLE_MS)
  await ended
})

test('what is under way when the threads end is not waited for', async () => {
  const starting = once(process, 'worker') as Promise<[Worker]>
  const ended = { code: 'STORE_UNAVAILABLE', message: 'the thread that scanned the store has ended' }
  const asked = expect(scans.summarize(question, held(0))).rejects.toMatchObject(ended)
  const [thread] = await starting
  // However fast it is, it is still under way when it ends.
  thread.removeAllListeners('message')
  await scans[Symbol.asyncDispose]()
  await asked
})
