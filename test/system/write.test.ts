import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { EmbeddedLog } from '../../processor/log/embedded/embedded-log.ts'
import { read } from '../contract/log-member.ts'
import { Stack, timeFor } from './stack.ts'

const PARTITIONS = 2
const ROUNDS = 3

let stack: Stack

beforeAll(async () => {
  stack = await Stack.start({ env: { PARTITIONS: String(PARTITIONS) } })
})

afterAll(async () => {
  await stack?.[Symbol.asyncDispose]()
})

async function says(deviceId: string, payload: object): Promise<void> {
  const client = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port: stack.mqttPort, clientId: deviceId })
  await client.publishAsync(`devices/${deviceId}/telemetry`, JSON.stringify(payload), { qos: 1 })
  await client.endAsync()
}

async function ask(method: string, path: string, body?: object, headers: Record<string, string> = {}) {
  const type: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' }
  const init = body === undefined ? {} : { body: JSON.stringify(body) }
  const response = await stack.get(`/v1/devices/${path}`, { method, headers: { ...type, ...headers }, ...init })
  const text = await response.text()
  const position = response.headers.get('tidemark-position')
  return { status: response.status, position, body: text === '' ? undefined : (JSON.parse(text) as object) }
}

test('a write that was acknowledged survives kill -9, and is applied once', timeFor(ROUNDS), async () => {
  await says('truck-17', { t: 1 })
  for (let round = 1; round <= ROUNDS; round++) {
    const put = await ask('PATCH', 'truck-17/attributes', { [`round${round}`]: true })
    expect(put.status).toBe(202)
    await stack.kill()
    await stack.restart()
    const { status, body } = await ask('GET', `truck-17/attributes?atLeast=${put.position}`)
    expect([status, Object.keys(body ?? {})]).toEqual([200, Array.from({ length: round }, (_, i) => `round${i + 1}`)])
  }
  // The same write again changes nothing, and a condition on what it was before is stale.
  const before = (await ask('GET', 'truck-17')).body as { rev: number }
  const again = await ask('PATCH', 'truck-17/attributes', { round3: true }, { prefer: 'wait=5' })
  expect(again).toMatchObject({ status: 200, body: { rev: before.rev } })
  const stale = await ask('PUT', 'truck-17/attributes', {}, { 'if-match': `"${before.rev - 1}"` })
  expect(stale).toMatchObject({ status: 412, body: { title: 'Precondition failed' } })
})

test('a deleted device stays so through kill -9, until it reports again', timeFor(2), async () => {
  await says('truck-18', { t: 1 })
  await says('truck-19', { t: 1 })
  for (const id of ['truck-18', 'truck-19']) {
    expect(await ask('PUT', `${id}/attributes`, { site: 'k1' }, { prefer: 'wait=5' })).toMatchObject({ status: 200 })
    expect(await ask('DELETE', id, undefined, { prefer: 'wait=5' })).toMatchObject({ status: 204, body: undefined })
  }
  await stack.kill()
  await stack.restart()
  for (const id of ['truck-18', 'truck-19']) expect((await ask('GET', id)).status).toBe(404)
  await says('truck-18', { u: 2 })
  const put = await ask('PUT', 'truck-18/attributes', { site: 'k2' }, { prefer: 'wait=5' })
  expect(put.body).toMatchObject({ counters: { messages: 1 }, attributes: { site: 'k2' } })
  expect(put.body).not.toHaveProperty('reported.t')
  await stack.stop()

  await using log = await EmbeddedLog.open({
    folder: join(stack.dataDir, 'log'),
    partitions: PARTITIONS,
    logger: pino({ level: 'silent' }),
    registry: new Registry(),
  })
  const last = new Map<string | null, Uint8Array | null>()
  for (let index = 0; index < PARTITIONS; index++) {
    const { end } = await log.bounds({ topic: 'status', index })
    for (const { key, value } of await read(log, 'status', index, 0, end)) last.set(key, value)
  }
  expect(last.get('truck-19')).toBeNull()
  expect(JSON.parse(Buffer.from(last.get('truck-18') ?? []).toString())).toMatchObject({ attributes: { site: 'k2' } })
})
