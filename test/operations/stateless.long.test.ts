import { connectAsync, type MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { seededRandom } from '../../simulators/random.ts'
import { kafkaMissing, startKafka } from '../kafka/kafka.ts'
import type { DeviceAnswer } from '../system/answers.ts'
import { type Api, Balanced, type Reply, type Request } from './balanced.ts'
import { Dashboard, Requester } from './clients.ts'
import { isThere } from './tools.ts'

const DEADLINE = { timeout: 60_000, interval: 20 }
const here = kafkaMissing === undefined && isThere('haproxy')
/** Devices that clients write to under load, each client its own. */
const CLIENTS = 3
const IDS = Array.from({ length: 20 }, (_, i) => `van-${String(i).padStart(2, '0')}`)
/** What the i-th reports, other than the order of the ids. */
const orderOf = (i: number): number => (7 * i) % IDS.length
const KILLS = 3
/** Requests answered between two disturbances: more than any process could have had under way. */
const ANSWERS = 30
/** Payloads that are no JSON. */
const LETTERS = ['{1', '{2', '{3', '{4', '{5', '{6', '{7']

const idOf = ({ deviceId }: { deviceId: string }): string => deviceId

interface Page<Item> {
  readonly items: Item[]
  readonly nextCursor?: string
}

interface Letter {
  readonly payload: { readonly content: string }
}

describe.skipIf(!here)('three API processes behind a balancer without stickiness', { timeout: 180_000 }, () => {
  let kafka: Kafka
  let balanced: Balanced
  let token: string
  let devices: MqttClient

  /** A device that reports once, so that no later change makes good for one that is missed. */
  const report = (id: string, x = 0) =>
    devices.publishAsync(`devices/${id}/telemetry`, JSON.stringify({ x }), { qos: 1 })

  beforeAll(async () => {
    kafka = await startKafka()
    balanced = await Balanced.open(kafka.brokers)
    token = await balanced.token()
    const { mqttPort: port } = balanced.cluster
    devices = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port })
    await Promise.all(IDS.map((id, i) => report(id, orderOf(i))))
    for (const payload of LETTERS) await devices.publishAsync('devices/bad/telemetry', payload, { qos: 1 })
    await vi.waitFor(async () => expect((await list('limit=1000')).items.map(idOf)).toEqual(IDS), DEADLINE)
  }, 240_000)

  afterAll(async () => {
    await devices?.endAsync()
    await balanced?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  const list = (query: string) => page<DeviceAnswer>(`/v1/devices?${query}`, token)

  async function page<Item>(path: string, bearer: string): Promise<Page<Item> & { by: Api | undefined }> {
    const { status, text, by } = await balanced.ask(path, { token: bearer })
    expect(status, text).toBe(200)
    return { ...(JSON.parse(text) as Page<Item>), by }
  }

  /** What is on all pages, of which each process gives some. */
  async function all<Item>(path: string, bearer: string): Promise<Item[]> {
    const items: Item[] = []
    const by: (Api | undefined)[] = []
    let cursor = ''
    do {
      const one = await page<Item>(`${path}${cursor}`, bearer)
      items.push(...one.items)
      by.push(one.by)
      cursor = one.nextCursor === undefined ? '' : `&cursor=${one.nextCursor}`
    } while (cursor !== '')
    expect(new Set(by)).toEqual(new Set(balanced.apis))
    return items
  }

  /** Of the same request to each process. */
  async function fromEach(path: string, bearer?: string, request: Request = {}): Promise<Reply[]> {
    const replies = new Map<Api | undefined, Reply>()
    while (replies.size < balanced.apis.length) {
      const reply = await balanced.ask(path, { ...request, token: bearer })
      replies.set(reply.by, reply)
    }
    expect(new Set(replies.keys())).toEqual(new Set(balanced.apis))
    return [...replies.values()]
  }

  const statusesOf = async (...of: Parameters<typeof fromEach>) => (await fromEach(...of)).map(({ status }) => status)

  test.each([
    ['deviceId', IDS],
    ['-reported.x', IDS.toSorted((a, b) => orderOf(IDS.indexOf(b)) - orderOf(IDS.indexOf(a)))],
  ])('each gives the next page of a list by %s that another began', async (sort, expected) => {
    const found = await all<DeviceAnswer>(`/v1/devices?q=deviceId:van-*&sort=${sort}&limit=3`, token)
    expect(found.map(idOf)).toEqual(expected)
  })

  test('each gives the next page of the dead letters that another began', async () => {
    const operator = await balanced.token({ scope: 'devices:read ops:read' })
    await vi.waitFor(async () => {
      const letters = await all<Letter>('/v1/dead-letters?deviceId=bad&limit=2', operator)
      expect(letters.map(({ payload }) => payload.content)).toEqual(LETTERS.toReversed())
    }, DEADLINE)
  })

  test('each reads what was written through another', async () => {
    const pairs = new Set<string>()
    for (let n = 0; n < 6; n++) {
      const path = `/v1/devices/${IDS[n]}`
      const headers: Record<string, string> = n % 2 === 0 ? {} : { prefer: 'wait=10' }
      const put = await balanced.ask(`${path}/attributes`, { method: 'PUT', body: { n }, headers, token })
      expect(put.status, put.text).toBe(n % 2 === 0 ? 202 : 200)
      // One that was waited for is read by anyone without more ado.
      const query = n % 2 === 0 ? `?atLeast=${put.headers.get('tidemark-position')}` : ''
      const got = await vi.waitFor(async () => {
        const reply = await balanced.ask(`${path}${query}`, { token })
        // Not within the 2 s of a read, on a slow machine: it is asked for again.
        expect(reply.text).not.toContain('urn:tidemark:problem:position-not-reached')
        expect(reply.by).not.toBe(put.by)
        return reply
      }, DEADLINE)
      expect([got.status, JSON.parse(got.text)], got.text).toMatchObject([200, { attributes: { n } }])
      pairs.add(`${put.by} ${got.by}`)
    }
    expect(pairs.size).toBeGreaterThan(1)
  })

  test('each knows the ETag that another gave, and no longer when it is of before a write through another', async () => {
    const path = `/v1/devices/${IDS[7]}`
    let etag: string | null = null
    for (let n = 0; n < 4; n++) {
      const before = etag
      // All of them have read it as it is before the next write.
      const read = await fromEach(path, token)
      const tags = new Set(read.map(({ headers }) => headers.get('etag')))
      expect(tags.size, [...tags].join()).toBe(1)
      etag = [...tags][0] as string
      expect(etag).not.toBe(before)
      expect(await statusesOf(path, token, { headers: { 'if-none-match': etag } })).toEqual([304, 304, 304])
      if (before !== null) {
        expect(await statusesOf(path, token, { headers: { 'if-none-match': before } })).toEqual([200, 200, 200])
        const stale = { method: 'PUT', body: { n: 'stale' }, headers: { 'if-match': before } }
        expect(await statusesOf(`${path}/attributes`, token, stale)).toEqual([412, 412, 412])
      }
      const put = { method: 'PUT', body: { n }, headers: { 'if-match': etag }, token }
      expect(await balanced.ask(`${path}/attributes`, put)).toMatchObject({ status: 200 })
    }
  })

  test('a process that stops answers what it has been asked, for longer than balancers are given notice', async () => {
    const [stopped] = balanced.apis as readonly [Api]
    const repeated = await balanced.repeated()
    await vi.waitFor(async () => expect(await balanced.underWay()).toEqual([0, 0, 0]), DEADLINE)
    balanced.freezeProcessor()
    onTestFinished(() => balanced.thawProcessor())
    const put = { method: 'PUT', body: { asked: 'before' }, headers: { prefer: 'wait=10' }, token }
    const puts = balanced.apis.map((_, i) => balanced.ask(`/v1/devices/${IDS[10 + i]}/attributes`, put))
    await vi.waitFor(async () => expect(await balanced.underWay()).toEqual([1, 1, 1]), DEADLINE)
    const exit = balanced.stop(stopped)
    // The notice is over, and no answer could be given so far.
    await vi.waitFor(async () => expect(await balanced.listens(stopped)).toBe(false), DEADLINE)
    balanced.thawProcessor()
    const replies = await Promise.all(puts)
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(new Set(replies.map(({ by }) => by))).toEqual(new Set(balanced.apis))
    expect(await exit).toEqual({ code: 0, signal: null })
    expect(await balanced.repeated()).toBe(repeated)
    await balanced.restart(stopped)
  })

  test.each([
    ['the fleet', '/v1/changes?q=deviceId:van-*&snapshot=true'],
    ['a device', `/v1/devices/${IDS[8]}/changes?snapshot=true`],
  ])('each goes on with a stream of changes of %s that another began', async (_, path) => {
    using dashboard = new Dashboard(balanced.url(path), token)
    const id = IDS[8] as string
    await vi.waitFor(() => {
      expect(dashboard.devices.get(id)).toBeDefined()
      expect(dashboard.lastEventId).not.toMatch(/^-?$/)
    }, DEADLINE)
    for (let n = 0; new Set(dashboard.servedBy).size < balanced.apis.length; n++) {
      dashboard.disconnect()
      const put = { method: 'PUT', body: { n }, headers: { prefer: 'wait=10' }, token }
      expect(await balanced.ask(`/v1/devices/${id}/attributes`, put)).toMatchObject({ status: 200 })
      dashboard.connect()
      await vi.waitFor(() => expect(dashboard.devices.get(id)).toMatchObject({ attributes: { n } }), DEADLINE)
    }
    expect(dashboard.resets).toEqual(['start'])
  })

  test('each knows a token by its signature, and for which devices it is good', async () => {
    const narrow = await balanced.token({ devices: ['van-1'] })
    expect(await statusesOf('/v1/devices/van-10', narrow)).toEqual([200, 200, 200])
    expect(await statusesOf('/v1/devices/van-00', narrow)).toEqual([403, 403, 403])
    for (const { text } of await fromEach('/v1/devices', narrow)) {
      const { items } = JSON.parse(text) as { items: DeviceAnswer[] }
      expect(items.map(idOf)).toEqual(IDS.filter((id) => id.startsWith('van-1')))
    }
    expect(await statusesOf('/v1/devices')).toEqual([401, 401, 401])
    expect(await statusesOf('/v1/devices', await balanced.token({}, '-1h'))).toEqual([401, 401, 401])
  })

  test('fail no request that one retry does not mend when they are killed, none when restarted, and no stream misses a change', async () => {
    using dashboard = new Dashboard(balanced.url('/v1/changes?q=deviceId:van-*&snapshot=true'), token)
    const requester = new Requester(balanced, token)
    const wrong: string[] = []
    const over = new AbortController()
    const loads = Array.from({ length: CLIENTS }, (_, i) => load(requester, IDS[i] as string, over.signal, wrong))
    try {
      await vi.waitFor(() => {
        expect(dashboard.devices.size).toBe(IDS.length)
        // A stream that is cut within its snapshot has no id to go on from.
        expect(dashboard.lastEventId).not.toMatch(/^-?$/)
      }, DEADLINE)
      const random = seededRandom(6, 0)
      for (let k = 0; k < KILLS; k++) {
        // First the one that serves the stream, then whichever.
        const anyone = balanced.apis[Math.floor(random() * balanced.apis.length)] as Api
        await disturb(`kill-${k}`, k === 0 ? (dashboard.servedBy.at(-1) as Api) : anyone, 'kill')
      }
      expect(requester.unmended).toEqual([])
      const failed = requester.failures.length
      // Nor does one come to nothing that the balancer makes good by asking another process.
      const repeated = await balanced.repeated()
      for (const name of balanced.apis) await disturb(`stop-${name}`, name, 'stop')
      expect(requester.failures.slice(failed)).toEqual([])
      expect(await balanced.repeated()).toBe(repeated)
    } finally {
      over.abort()
      await Promise.all(loads)
    }
    expect(requester.unmended).toEqual([])
    expect(wrong).toEqual([])
    await vi.waitFor(async () => {
      const { items } = await list('limit=1000')
      expect(items).toHaveLength(IDS.length + 2 * (KILLS + balanced.apis.length))
      const told = Array.from(dashboard.devices, ([id, status]) => [id, { ...status, freshness: expect.anything() }])
      expect(Object.fromEntries(items.map((item) => [idOf(item), item]))).toEqual(Object.fromEntries(told))
    }, DEADLINE)
    expect(dashboard.resets).toEqual(['start'])
    expect(new Set(dashboard.servedBy).size).toBeGreaterThan(1)

    /** Ends a process under load, and starts it again; devices report before, meanwhile and after. */
    async function disturb(name: string, api: Api, how: 'kill' | 'stop'): Promise<void> {
      await report(`van-${name}-before`)
      const exit = await balanced[how](api)
      expect(exit).toEqual(how === 'kill' ? { code: null, signal: 'SIGKILL' } : { code: 0, signal: null })
      await report(`van-${name}-meanwhile`)
      // A client waits before it connects again: by then the balancer could give it to the same process, back already.
      await vi.waitFor(() => expect(dashboard.servedBy.at(-1)).not.toBeOneOf([api, undefined]), DEADLINE)
      await untilAnswered(
        requester,
        balanced.apis.filter((one) => one !== api),
        ANSWERS / 2,
      )
      await balanced.restart(api)
      await untilAnswered(requester, balanced.apis, ANSWERS / 3)
    }
  })
})

/** Each has answered so often from now on. */
async function untilAnswered({ answers }: Requester, by: readonly Api[], more: number): Promise<void> {
  const due = by.map((api) => (answers.get(api) ?? 0) + more)
  await vi.waitFor(() => {
    for (const [i, api] of by.entries()) expect(answers.get(api)).toBeGreaterThanOrEqual(due[i] as number)
  }, DEADLINE)
}

/** Writes to one device, reads its own writes, and looks around. What it reads must be what it wrote. */
async function load(requester: Requester, id: string, over: AbortSignal, wrong: string[]): Promise<void> {
  for (let turn = 0; !over.aborted; turn++) {
    const body = { turn }
    const headers: Record<string, string> = { prefer: 'wait=10' }
    const put = await requester.ask(`/v1/devices/${id}/attributes`, { method: 'PUT', body, headers })
    const position = put?.headers.get('tidemark-position')
    const own = await requester.ask(`/v1/devices/${id}?atLeast=${position}`)
    if (own !== undefined && !own.text.includes(`"attributes":{"turn":${turn}}`)) wrong.push(own.text)
    await requester.ask('/v1/devices?sort=-lastSeenAt&limit=5')
    await requester.ask('/v1/devices/count?q=reported.x:>3')
    await requester.ask('/v1/devices/batch-get', { method: 'POST', body: { deviceIds: IDS } })
    for (const other of IDS) await requester.ask(`/v1/devices/${other}`)
  }
}
