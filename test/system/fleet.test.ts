import { EventSource } from 'eventsource'
import { connectAsync, type MqttClient } from 'mqtt'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { Status } from '../../processor/contract/status.ts'
import { Stack, timeFor } from './stack.ts'

const DEVICES = 30
const DEADLINE = { timeout: 20_000, interval: 10 }

let stack: Stack
let gateway: MqttClient

beforeAll(async () => {
  stack = await Stack.start({ env: { PARTITIONS: '4' } })
  gateway = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port: stack.mqttPort, clientId: 'gateway' })
  await Promise.all(
    Array.from({ length: DEVICES }, async (_, i) => {
      await says(`truck-${i}`, { battery: i })
      if (i % 3 === 2) return
      const [status] = await write(`truck-${i}`, { site: `k${i % 3}` })
      expect(status).toBe(200)
    }),
  )
  // Those that nothing was written to are not waited for by then, nor is it that any of them is online.
  await vi.waitFor(async () => {
    expect(await stack.json('/v1/devices/count?q=connectivity.state:online')).toMatchObject({ count: DEVICES })
  }, DEADLINE)
})

afterAll(async () => {
  await gateway?.endAsync()
  await stack?.[Symbol.asyncDispose]()
})

async function says(deviceId: string, payload: object): Promise<void> {
  await gateway.publishAsync(`devices/${deviceId}/telemetry`, JSON.stringify(payload), { qos: 1 })
}

async function write(deviceId: string, attributes: object): Promise<[number, unknown]> {
  const response = await stack.get(`/v1/devices/${deviceId}/attributes`, {
    method: 'PATCH',
    headers: { 'content-type': 'application/merge-patch+json', prefer: 'wait=10' },
    body: JSON.stringify(attributes),
  })
  return [response.status, await response.json()]
}

interface Page {
  readonly complete?: boolean
  readonly items: readonly (Partial<Status> & { readonly deviceId: string })[]
}

/** The devices of all pages, as `Link` leads through them. */
async function pages(parameters: Record<string, string>): Promise<{ ids: string[]; sizes: number[] }> {
  const ids: string[] = []
  const sizes: number[] = []
  for (
    let path: string | undefined = `/v1/devices?${new URLSearchParams(parameters).toString()}`;
    path !== undefined;
  ) {
    const response = await stack.get(path)
    expect(response.status).toBe(200)
    const { items, complete } = (await response.json()) as Page
    expect(complete, `whether all was looked at for ${path}`).not.toBe(false)
    for (const item of items) expect(Object.keys(item).toSorted()).toEqual(['deviceId', 'freshness', 'reported'])
    ids.push(...items.map(({ deviceId }) => deviceId))
    sizes.push(items.length)
    path = /^<(.*)>; rel="next"$/.exec(response.headers.get('link') ?? '')?.[1]
  }
  return { ids, sizes }
}

/** Trucks with these numbers. */
const trucks = (numbers: readonly number[]) => numbers.map((n) => `truck-${n}`)

/** Objects within objects need not be whole. */
function matching(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  const inner = Object.fromEntries(Object.entries(value).map(([name, each]) => [name, matching(each)]))
  return Object.keys(inner).length === 0 ? {} : expect.objectContaining(inner)
}

/** A group of a summary by the batteries of its trucks. */
const group = (by: object, numbers: readonly number[]) => ({
  by,
  count: numbers.length,
  metrics: { 'reported.battery': { min: numbers[0], max: numbers.at(-1), exact: true } },
})

test('a fleet is searched, sorted, paged, counted and summed up, and so again after kill -9', timeFor(1), async () => {
  const q = 'attributes.site:k1 AND reported.battery:<20 AND NOT deviceId:truck-7'
  const batteries = (from: number) => Array.from({ length: DEVICES / 3 }, (_, i) => from + 3 * i)
  const ask = async () => {
    const found = await pages({ q, sort: '-reported.battery', limit: '4', fields: 'reported.battery' })
    expect(found.ids).toEqual(trucks([19, 16, 13, 10, 4, 1]))
    expect(found.sizes).toEqual([4, 2])
    expect(await stack.json(`/v1/devices/count?q=${encodeURIComponent(q)}`)).toMatchObject({ count: 6, complete: true })
    const summary = await stack.json<{ groups: object[] }>(
      '/v1/fleet/summary?by=attributes.site&metric=reported.battery',
    )
    expect(summary).toMatchObject({ devices: DEVICES, complete: true, notShown: 0 })
    const groups = [group({ 'attributes.site': 'k0' }, batteries(0)), group({ 'attributes.site': 'k1' }, batteries(1))]
    expect(summary.groups).toHaveLength(3)
    expect(summary.groups).toEqual(
      expect.arrayContaining([...groups, group({}, batteries(2))].map((each) => matching(each))),
    )
  }
  await ask()
  expect(await stack.json('/v1/devices/count?q=connectivity.state:online')).toMatchObject({ count: DEVICES })
  const wrong = await stack.get('/v1/devices?q=rev:1%20AND')
  expect([wrong.status, await wrong.json()]).toMatchObject([400, { errors: [{ field: 'q', position: 9 }] }])
  await gateway.endAsync()
  await stack.kill()
  await stack.restart()
  await ask()
  gateway = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port: stack.mqttPort, clientId: 'gateway' })
})

test('a stream tells when a device begins and ceases to match, and of nothing else', async () => {
  const told: string[] = []
  const q = 'reported.battery:<20 AND attributes.site:k9'
  const source = new EventSource(
    `http://127.0.0.1:${stack.httpPort}/v1/changes?snapshot=true&q=${encodeURIComponent(q)}`,
  )
  try {
    for (const name of ['reset', 'enter', 'change', 'leave', 'snapshot-end']) {
      source.addEventListener(name, ({ data }) => {
        const { deviceId, reported } = JSON.parse(data as string) as Partial<Status>
        const battery = reported?.battery === undefined ? [] : [JSON.stringify(reported.battery.value)]
        told.push([name, ...(deviceId === undefined ? [] : [deviceId]), ...battery].join(' '))
      })
    }
    const tells = (...expected: string[]) => vi.waitFor(() => expect(told).toEqual(expected), DEADLINE)
    const begun = ['reset', 'snapshot-end']
    await tells(...begun)
    // Never matches; what comes after shows that it was passed over.
    await says('van-0', { battery: 5 })
    await says('van-1', { battery: 50 })
    expect((await write('van-1', { site: 'k9' }))[0]).toBe(200)
    await says('van-1', { battery: 19 })
    await tells(...begun, 'enter van-1 19')
    await says('van-1', { battery: 18 })
    await tells(...begun, 'enter van-1 19', 'change van-1 18')
    await says('van-1', { battery: 20 })
    await tells(...begun, 'enter van-1 19', 'change van-1 18', 'leave van-1')
    await says('van-1', { battery: 17 })
    await tells(...begun, 'enter van-1 19', 'change van-1 18', 'leave van-1', 'enter van-1 17')
    const response = await stack.get('/v1/devices/van-1', { method: 'DELETE', headers: { prefer: 'wait=10' } })
    expect(response.status).toBe(204)
    await tells(...begun, 'enter van-1 19', 'change van-1 18', 'leave van-1', 'enter van-1 17', 'leave van-1')
  } finally {
    source.close()
  }
})
