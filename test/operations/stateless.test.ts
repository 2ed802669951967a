import { connectAsync, type MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Kafka } from '../../simulators/kafka.ts'
import { seededRandom } from '../../simulators/random.ts'
import { kafkaMissing, startKafka } from '../kafka/kafka.ts'
import type { DeviceAnswer } from '../system/answers.ts'
import { type Api, Balanced, type Reply } from './balanced.ts'
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

const idOf = ({ deviceId }: { deviceId: string }): string => deviceId

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
    await vi.waitFor(async () => expect((await list('limit=1000')).items.map(idOf)).toEqual(IDS), DEADLINE)
  }, 240_000)

  afterAll(async () => {
    await devices?.endAsync()
    await balanced?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  async function list(query: string): Promise<{ items: DeviceAnswer[]; nextCursor?: string; by: Api | undefined }> {
    const { status, text, by } = await balanced.ask(`/v1/devices?${query}`, { token })
    expect(status, text).toBe(200)
    return { ...(JSON.parse(text) as { items: DeviceAnswer[]; nextCursor?: string }), by }
  }

  /** Of the same request to each process. */
  async function fromEach(path: string, bearer: string | undefined): Promise<Reply[]> {
    const replies: Reply[] = []
    for (const _ of balanced.apis) replies.push(await balanced.ask(path, { token: bearer }))
    expect(new Set(replies.map(({ by }) => by))).toEqual(new Set(balanced.apis))
    return replies
  }

  const statusesOf = async (path: string, bearer?: string) => (await fromEach(path, bearer)).map(({ status }) => status)

  test.each([
    { sort: 'deviceId', expected: IDS },
    { sort: '-reported.x', expected: IDS.toSorted((a, b) => orderOf(IDS.indexOf(b)) - orderOf(IDS.indexOf(a))) },
  ])('each gives the next page of a list by $sort that another began', async ({ sort, expected }) => {
    const found: string[] = []
    const by: (Api | undefined)[] = []
    let cursor: string | undefined
    do {
      const page = await list(`q=deviceId:van-*&sort=${sort}&limit=3${cursor === undefined ? '' : `&cursor=${cursor}`}`)
      found.push(...page.items.map(idOf))
      by.push(page.by)
      cursor = page.nextCursor
    } while (cursor !== undefined)
    expect(found).toEqual(expected)
    expect(new Set(by.slice(0, 3))).toEqual(new Set(balanced.apis))
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
      const got = await balanced.ask(`${path}${query}`, { token })
      expect([got.status, JSON.parse(got.text)], got.text).toMatchObject([200, { attributes: { n } }])
      expect(got.by).not.toBe(put.by)
      pairs.add(`${put.by} ${got.by}`)
    }
    expect(pairs.size).toBeGreaterThan(1)
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
      for (const name of balanced.apis) await disturb(`stop-${name}`, name, 'stop')
      expect(requester.failures.slice(failed)).toEqual([])
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
