import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import { afterEach, describe, expect, it } from 'vitest'
import { LetterCursors } from '../../../api/dead-letters/reading.ts'
import { deadLetter, type RejectionReason } from '../../../processor/contract/dead-letter.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { EmbeddedLog, type EmbeddedLogOptions } from '../../../processor/log/embedded/embedded-log.ts'
import type { NewRecord } from '../../../processor/log/log.ts'
import { letterReader } from '../../../processor/query/log-readers.ts'
import { CLAIMS, get, guarded, signed } from '../auth/guarded.ts'
import { type Answered, ask } from '../conformance.ts'
import { Live } from '../live.ts'
import { type Stage, silent, stage } from '../stage.ts'
import { MemoryLetters } from './memory.ts'

const AT = Date.parse('2026-11-24T10:00:00Z')
const ROUTE = '/v1/dead-letters'

interface LetterBody {
  readonly partition: number
  readonly offset: number
  readonly at: string | null
  readonly reason: string
  readonly deviceId: string | null
  readonly payload: { readonly encoding: string; readonly content: string; readonly bytes: number }
}

let running: AsyncDisposableStack | undefined
afterEach(async () => {
  await running?.disposeAsync()
  running = undefined
})

async function openLog(options: Partial<EmbeddedLogOptions> = {}): Promise<EmbeddedLog> {
  running ??= new AsyncDisposableStack()
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-letters-'))
  running.defer(() => rm(folder, { recursive: true }))
  const made = { folder: join(folder, 'log'), partitions: 4, logger: silent, registry: new Registry() }
  return running.use(await EmbeddedLog.open({ ...made, ...options }))
}

async function over(log: EmbeddedLog, options: Parameters<typeof stage>[0] = {}): Promise<Stage> {
  const on = await stage({ letters: letterReader(log), ...options })
  // Before its log, which goes before what ends with the test.
  running?.use(on)
  return on
}

/** As ingest makes it. */
function letter(deviceId: string | null, payload: string | Buffer, reason: RejectionReason, at = AT): NewRecord {
  const value = Buffer.from(payload)
  return deadLetter(reason, { key: deviceId, value, timestamp: at }, { topic: `devices/${deviceId}/telemetry` })
}

/** Each in an append of its own, a second after the one before. */
async function append(log: EmbeddedLog, count: number, of: (i: number) => NewRecord): Promise<void> {
  for (let i = 0; i < count; i++) await log.append('dead-letters', [of(i)])
}

const itemsOf = ({ body }: Answered) => body.items as unknown as readonly LetterBody[]
const contents = (answer: Answered) => itemsOf(answer).map(({ payload }) => payload.content)

async function pages(on: Stage, query: string): Promise<Answered[]> {
  const all: Answered[] = []
  for (let url: string | undefined = `${ROUTE}?${query}`; url !== undefined; ) {
    const answer: Answered = await ask(on.api, url)
    expect(answer.status, answer.text).toBe(200)
    all.push(answer)
    url = answer.headers.link?.match(/^<(.*)>; rel="next"$/)?.[1]
    expect(url === undefined).toBe(answer.body.nextCursor === undefined)
  }
  return all
}

describe('GET /v1/dead-letters', () => {
  it('tells what came in, why it has no effect, and where from', async () => {
    const live = (running = new AsyncDisposableStack()).use(await Live.open())
    expect((await ask(live.api, ROUTE)).body).toEqual({ items: [] })
    await live.log.append('dead-letters', [
      deadLetter('bad-topic', { key: null, value: Buffer.from([0xff, 0]), timestamp: AT }, { topic: 'fleet/a' }),
    ])
    const id = await live.device()
    const broken = { key: id, value: Buffer.from('{"t":'), timestamp: AT + 1000, headers: { metric: 't' } }
    const { partition, offset } = await live.log.write(broken)
    await live.says(id, { t: 2 })

    const { body, headers } = await ask(live.api, ROUTE)
    expect(headers['cache-control']).toBe('no-cache')
    expect(body).toEqual({
      items: [
        {
          partition,
          offset: expect.any(Number),
          at: '2026-11-24T10:00:01.000Z',
          reason: 'not-json',
          deviceId: id,
          key: id,
          position: `${partition}-${offset}`,
          headers: { metric: 't' },
          payload: { encoding: 'text', content: '{"t":', bytes: 5 },
        },
        {
          partition: expect.any(Number),
          offset: 0,
          at: '2026-11-24T10:00:00.000Z',
          reason: 'bad-topic',
          deviceId: null,
          key: null,
          topic: 'fleet/a',
          payload: { encoding: 'base64', content: '/wA=', bytes: 2 },
        },
      ],
    })
  })

  it('gives all partitions newest first, page by page, and what comes meanwhile only from a new first page', async () => {
    const log = await openLog()
    const on = await over(log)
    await append(log, 30, (i) => letter(`d${i}`, `${i}`, 'not-json', AT + i * 1000))
    const first = await ask(on.api, `${ROUTE}?limit=7`)
    await append(log, 5, (i) => letter(`d${i}`, 'later', 'not-json', AT + 100_000))
    const rest = await pages(on, `limit=7&cursor=${first.body.nextCursor}`)
    const seen = [first, ...rest].flatMap(contents)
    expect(seen).toEqual(Array.from({ length: 30 }, (_, i) => `${29 - i}`))
    expect(new Set(itemsOf(first).map(({ partition }) => partition)).size).toBeGreaterThan(1)
    expect(contents(await ask(on.api, `${ROUTE}?limit=5`))).toEqual(Array.from({ length: 5 }, () => 'later'))
  })

  it('has 100 in a page when nobody says how many, and no more than 1,000', async () => {
    const log = await openLog()
    const on = await over(log)
    await log.append(
      'dead-letters',
      Array.from({ length: 1100 }, (_, i) => letter(`d${i}`, `${i}`, 'not-json')),
    )
    expect((await ask(on.api, ROUTE)).body.items).toHaveLength(100)
    expect((await ask(on.api, `${ROUTE}?limit=1000`)).body.items).toHaveLength(1000)
    expect(new Set((await pages(on, 'limit=333')).flatMap(contents)).size).toBe(1100)
  })

  it('filters by reason, device and partition', async () => {
    const log = await openLog()
    const on = await over(log)
    await append(log, 40, (i) => letter(`d${i % 4}`, `${i}`, i % 2 === 0 ? 'not-json' : 'too-deep', AT + i * 1000))
    const all = (await pages(on, 'limit=3')).flatMap(itemsOf)
    const some = async (query: string) => (await pages(on, `limit=3&${query}`)).flatMap(itemsOf)
    expect(await some('reason=too-deep')).toEqual(all.filter(({ reason }) => reason === 'too-deep'))
    expect(await some('deviceId=d2')).toEqual(all.filter(({ deviceId }) => deviceId === 'd2'))
    const partition = all[0]?.partition as number
    expect(await some(`partition=${partition}`)).toEqual(all.filter((one) => one.partition === partition))
    expect(await some('reason=too-deep&deviceId=d2')).toEqual([])
    expect(await some('reason=too-deep&deviceId=d1')).toHaveLength(10)
  })

  it('looks for a device where its letters are, and wherever it is told to', async () => {
    const letters = new MemoryLetters(4)
    const home = partitionOf('d1', 4)
    for (let partition = 0; partition < 4; partition++) letters.add(partition, letter('d1', `${partition}`, 'not-json'))
    const on = await stage({ letters })
    expect(contents(await ask(on.api, `${ROUTE}?deviceId=d1`))).toEqual([`${home}`])
    expect(letters.windows).toHaveLength(1)
    // Another program may have put a letter there.
    const elsewhere = (home + 1) % 4
    expect(contents(await ask(on.api, `${ROUTE}?deviceId=d1&partition=${elsewhere}`))).toEqual([`${elsewhere}`])
  })

  it('shows the beginning of what is long, in whole characters, and how long it is', async () => {
    const log = await openLog()
    const on = await over(log)
    const topic = `devices/${'é'.repeat(2000)}`
    const text = `a${'é'.repeat(3000)}`
    const headers = { kind: 'x', metric: `${'-'.repeat(1023)}😀`, will: '7' }
    await log.append('dead-letters', [
      deadLetter('bad-topic', { key: null, value: Buffer.from(text), timestamp: AT, headers }, { topic }),
      deadLetter(
        'not-utf8',
        { key: `${'k'.repeat(1023)}😀`, value: Buffer.alloc(300_000, 0xff), timestamp: AT },
        { topic: 't' },
      ),
      deadLetter('bad-timestamp', { key: 'a', value: null, timestamp: 2 ** 60 }, { partition: 3, offset: 9 }),
    ])
    const items = (await ask(on.api, ROUTE)).body.items as unknown as Record<string, unknown>[]
    expect(items.toSorted((a, b) => String(a.reason).localeCompare(String(b.reason)))).toMatchObject([
      { at: null, reason: 'bad-timestamp', timestamp: '1152921504606847000', position: '3-9', payload: null },
      {
        topic: topic.slice(0, 1024),
        headers: { kind: 'x', will: '7' },
        payload: { encoding: 'text', content: text.slice(0, 2048), bytes: 6001, shownBytes: 4095 },
        shortened: ['topic', 'headers'],
      },
      {
        key: 'k'.repeat(1023),
        deviceId: null,
        payload: { encoding: 'base64', content: Buffer.alloc(4096, 0xff).toString('base64'), bytes: 300_000 },
        shortened: ['key'],
      },
    ])
  })

  it('leaves out what retention removed between two pages', async () => {
    let now = AT
    const log = await openLog({
      partitions: 1,
      segmentBytes: 1000,
      retention: { deadLettersMs: 10_000 },
      now: () => now,
    })
    const on = await over(log)
    await append(log, 60, (i) => letter('d', `${i}`.padEnd(100), 'not-json', AT + i * 1000))
    const first = await ask(on.api, `${ROUTE}?limit=5`)
    now = AT + 60_000
    await log.tidy()
    const { start } = await log.bounds({ topic: 'dead-letters', index: 0 })
    expect(start).toBeGreaterThan(20)
    const seen = [first, ...(await pages(on, `limit=5&cursor=${first.body.nextCursor}`))].flatMap(itemsOf)
    expect(seen.map(({ offset }) => offset)).toEqual(Array.from({ length: 60 - start }, (_, i) => 59 - i))
    now = AT + 3_600_000
    await log.tidy()
    // The segment that is written to is kept.
    const last = await log.bounds({ topic: 'dead-letters', index: 0 })
    expect(last.start).toBeGreaterThan(50)
    const old = (await pages(on, `limit=5&cursor=${first.body.nextCursor}`)).flatMap(itemsOf)
    expect(old.map(({ offset }) => offset)).toEqual(Array.from({ length: 55 - last.start }, (_, i) => 54 - i))
  })

  it('says that it was cut short, and goes on', async () => {
    const log = await openLog()
    const on = await over(log, { limits: { maxLettersExamined: 20 } })
    await append(log, 200, (i) => letter(`d${i}`, `${i}`, i === 7 ? 'too-deep' : 'not-json', AT + i * 1000))
    const answers = await pages(on, 'reason=too-deep&limit=3')
    expect(answers.length).toBeGreaterThan(2)
    expect(answers.flatMap(contents)).toEqual(['7'])
    const [first] = answers
    expect(first?.body).toMatchObject({ complete: false, reason: expect.stringContaining('20 letters') })
    expect(answers.at(-1)?.body).not.toHaveProperty('nextCursor')
  })
})

describe('what is wrong with a request for dead letters', () => {
  it.each([
    ['limit=0', 'limit'],
    ['limit=1001', 'limit'],
    ['limit=x', 'limit'],
    ['reason=bored', 'reason'],
    ['deviceId=a%2Fb', 'deviceId'],
    ['partition=-1', 'partition'],
    ['partition=4', 'partition'],
    ['cursor=', 'cursor'],
    ['cursor=%20', 'cursor'],
    ['cursor=0123456789abcdef.1.-.1.1', 'cursor'],
    ['after=1', 'after'],
  ])('is named: %s', async (query, field) => {
    const on = await over(await openLog())
    const { status, body } = await ask(on.api, `${ROUTE}?${query}`)
    expect([status, body.errors.map((error) => error.field)]).toEqual([400, [field]])
  })

  it('is the cursor of other filters, of another log, or of numbers that no offset is', async () => {
    const log = await openLog()
    const on = await over(log)
    await append(log, 10, (i) => letter(`d${i}`, `${i}`, 'not-json'))
    const { nextCursor } = (await ask(on.api, `${ROUTE}?limit=2&reason=not-json`)).body
    expect((await ask(on.api, `${ROUTE}?reason=not-json&cursor=${nextCursor}`)).status).toBe(200)
    const filters = { reason: 'not-json', deviceId: undefined, partition: undefined }
    const { identity } = letterReader(log)
    const forged = [
      `cursor=${nextCursor}`,
      `reason=too-deep&cursor=${nextCursor}`,
      `reason=not-json&deviceId=d1&cursor=${nextCursor}`,
      `reason=not-json&partition=1&cursor=${nextCursor}`,
      `reason=not-json&cursor=${nextCursor}0`,
      `reason=not-json&cursor=${new LetterCursors('other', 4, filters).encode([1, 1, 1, 1])}`,
      `reason=not-json&cursor=${new LetterCursors(identity, 4, filters).encode([2 ** 54, 1, 1, 1])}`,
    ]
    const message = 'is not a cursor that this API gave for this reason, deviceId and partition'
    for (const query of forged) {
      const { status, body } = await ask(on.api, `${ROUTE}?${query}`)
      expect([status, body.errors], query).toEqual([400, [{ field: 'cursor', message }]])
    }
  })
})

describe('a token', () => {
  it('that is for some devices shows only letters that tell one of these', async () => {
    const log = await openLog()
    await log.append('dead-letters', [
      letter('truck-1', 'a', 'not-json', AT),
      letter('van-1', 'b', 'not-json', AT + 1),
      letter(null, 'c', 'bad-topic', AT + 2),
      letter('truck-/', 'd', 'bad-device-id', AT + 3),
      letter('truck-2', 'e', 'not-json', AT + 4),
    ])
    const on = await guarded({}, { letters: letterReader(log) })
    const narrow = signed({ ...CLAIMS, scope: 'ops:read devices:read', devices: ['truck-'] })
    expect(contents(await get(on, narrow, ROUTE))).toEqual(['e', 'a'])
    expect(contents(await get(on, narrow, `${ROUTE}?deviceId=truck-1`))).toEqual(['a'])
    expect((await get(on, narrow, `${ROUTE}?deviceId=van-1`)).status).toBe(403)
    expect(contents(await get(on, signed(CLAIMS), ROUTE))).toEqual(['e', 'd', 'c', 'b', 'a'])
    const operator = await get(on, signed({ ...CLAIMS, scope: 'ops:read' }), ROUTE)
    expect([operator.status, operator.body.detail]).toEqual([403, 'the token lacks the scope devices:read'])
    expect((await get(on, signed({ ...CLAIMS, scope: 'devices:read' }), ROUTE)).status).toBe(403)
    expect((await get(on, undefined, ROUTE)).status).toBe(401)
  })
})
