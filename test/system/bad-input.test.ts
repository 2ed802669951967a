import { isUtf8 } from 'node:buffer'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { connectAsync, type MqttClient } from 'mqtt'
import { generate } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { deadLetters, device } from './answers.ts'
import { Stack } from './stack.ts'

const DEADLINE = { timeout: 10_000, interval: 10 }
const DAY_MS = 86_400_000

let stack: Stack
/** A well-behaved device beside all that: whatever another one sends, it must not notice. */
let bystander: MqttClient
let bystanderMessages = 0
let bystanderClosed = false

beforeAll(async () => {
  stack = await Stack.start({ env: { PARTITIONS: '2' } })
  bystander = await connectAsync({ ...broker(), clientId: 'bystander', reconnectPeriod: 0 })
  bystander.on('close', () => {
    bystanderClosed = true
  })
})

afterAll(async () => {
  await bystander?.endAsync(true)
  await stack?.[Symbol.asyncDispose]()
})

function broker() {
  return { protocol: 'mqtt' as const, host: '127.0.0.1', port: stack.mqttPort }
}

async function bystanderIsFine(): Promise<void> {
  await bystander.publishAsync('devices/bystander/telemetry', `{"count":${++bystanderMessages}}`, { qos: 1 })
  await vi.waitFor(async () => {
    const { reported, counters, connectivity } = await device(stack, 'bystander')
    expect(reported.count?.value).toBe(bystanderMessages)
    expect(counters).toEqual({ messages: bystanderMessages, late: 0, duplicates: 0, skewed: 0 })
    expect(connectivity.state).toBe('online')
  }, DEADLINE)
  expect(bystanderClosed).toBe(false)
}

/** What a device that published these, each as one message, has become. */
async function statusAfter(deviceId: string, ...payloads: unknown[]) {
  const client = await connectAsync({ ...broker(), clientId: deviceId })
  for (const payload of payloads) {
    await client.publishAsync(`devices/${deviceId}/telemetry`, JSON.stringify(payload), { qos: 1 })
  }
  await client.endAsync()
  return vi.waitFor(async () => {
    const status = await device(stack, deviceId)
    expect(status.counters.messages + status.counters.duplicates).toBe(payloads.length)
    return status
  }, DEADLINE)
}

/** Closed, with or without a reset. */
function closeOf(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()))
}

async function raw(clientId: string): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port: stack.mqttPort })
  socket.on('error', () => undefined)
  socket.write(
    generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId, keepalive: 0 }),
  )
  await once(socket, 'data')
  socket.resume()
  return socket
}

async function closes(clientId: string, bytes: Buffer): Promise<void> {
  const socket = await raw(clientId)
  const closed = closeOf(socket)
  socket.write(bytes)
  await closed
  await bystanderIsFine()
}

/** Objects (or arrays) nested so deep. */
function nested(depth: number, open: string, close: string, core: string): string {
  return open.repeat(depth) + core + close.repeat(depth)
}

function metricsObject(count: number): string {
  return JSON.stringify(Object.fromEntries(Array.from({ length: count }, (_, i) => [`m${i}`, i])))
}

const TELEMETRY = 'devices/bad/telemetry'

describe('a payload or topic the device cannot mend is acknowledged, and becomes a dead letter', () => {
  test.each<[string, string, string | Buffer, string]>([
    ['not JSON', TELEMETRY, '{"temperature":', 'not-json'],
    ['no payload', TELEMETRY, '', 'not-json'],
    ['not UTF-8', TELEMETRY, Buffer.from([0x22, 0xff, 0x22]), 'not-utf8'],
    ['a scalar where an object is due', TELEMETRY, '21.5', 'not-an-object'],
    ['an array of scalars', TELEMETRY, '[1,2]', 'not-an-object'],
    ['deeper than 16', TELEMETRY, nested(17, '{"a":', '}', '1'), 'too-deep'],
    ['an array deeper than 16', TELEMETRY, `{"a":${nested(16, '[', ']', '1')}}`, 'too-deep'],
    ['more than 256 metrics', TELEMETRY, metricsObject(257), 'too-many-metrics'],
    ['a metric name over 128 characters', TELEMETRY, JSON.stringify({ ['n'.repeat(129)]: 1 }), 'metric-name-too-long'],
    ['a payload over 256 KiB', TELEMETRY, JSON.stringify({ text: 'x'.repeat(256 * 1024) }), 'payload-too-large'],
    ['a device id outside the grammar', 'devices/no spaces/telemetry', '{"a":1}', 'bad-device-id'],
    ['a device id over 128 characters', `devices/${'d'.repeat(129)}/telemetry`, '{"a":1}', 'bad-device-id'],
    ['a topic outside the tree', 'vehicles/bad/telemetry', '{"a":1}', 'bad-topic'],
    ['a topic that begins with $', '$SYS/broker/clients', '{"a":1}', 'reserved-topic'],
    ['a topic below a metric', 'devices/bad/telemetry/a/b', '1', 'bad-topic'],
  ])('%s', async (_what, topic, payload, reason) => {
    const before = (await deadLetters(stack))[reason] ?? 0
    const client = await connectAsync({ ...broker(), clientId: 'bad', reconnectPeriod: 0 })
    await client.publishAsync(topic, payload, { qos: 1 })
    // The same connection goes on.
    await client.publishAsync('devices/good/telemetry', '{"a":1}', { qos: 1 })
    await client.endAsync()
    await vi.waitFor(async () => expect((await deadLetters(stack))[reason]).toBe(before + 1), DEADLINE)
    const bytes = Buffer.from(payload)
    const encoding = isUtf8(bytes) ? 'text' : 'base64'
    const content = bytes.toString(isUtf8(bytes) ? 'utf8' : 'base64', 0, 4096)
    const shown = await stack.json<{ items: object[] }>(`/v1/dead-letters?reason=${reason}&limit=1`)
    expect(shown.items).toMatchObject([{ reason, payload: { encoding, content, bytes: bytes.length } }])
    await bystanderIsFine()
    expect((await stack.get('/v1/devices/bad')).status).toBe(404)
  })

  test('what is just within the bounds counts', async () => {
    const before = await deadLetters(stack)
    const client = await connectAsync({ ...broker(), clientId: 'edge' })
    const longest = 'n'.repeat(128)
    for (const payload of [
      nested(16, '{"a":', '}', '1'),
      metricsObject(256),
      JSON.stringify({ [longest]: 1 }),
      JSON.stringify({ text: 'x'.repeat(256 * 1024 - '{"text":""}'.length) }),
    ]) {
      await client.publishAsync('devices/edge/telemetry', payload, { qos: 1 })
    }
    await client.endAsync()
    await vi.waitFor(async () => expect((await device(stack, 'edge')).counters.messages).toBe(4), DEADLINE)
    expect(await deadLetters(stack)).toEqual(before)
  })
})

describe('times and numbers', () => {
  test.each<[string, unknown]>([
    ['more than 5 min in the future', Date.now() + DAY_MS],
    ['not a number', 'NaN'],
    ['negative', -1],
  ])('a ts that is %s', async (what, ts) => {
    const from = new Date().toISOString()
    const status = await statusAfter(`skewed-${what.replaceAll(' ', '-')}`, { ts, values: { a: 1 } })
    expect(status.counters).toEqual({ messages: 1, late: 0, duplicates: 0, skewed: 1 })
    const at = status.reported.a?.at as string
    expect(at >= from && at <= new Date().toISOString()).toBe(true)
  })

  test('an older ts does not win, but its other metrics apply', async () => {
    const ts = Date.now() - DAY_MS
    const newer = { ts, values: { a: 2 } }
    const older = { ts: ts - 1000, values: { a: 1, b: 1 } }
    const { counters, reported } = await statusAfter('late', newer, older)
    expect(counters).toEqual({ messages: 2, late: 1, duplicates: 0, skewed: 0 })
    expect(reported).toMatchObject({ a: { value: 2 }, b: { value: 1 } })
  })

  test('the same seq again has no effect but to be counted', async () => {
    const message = { ts: Date.now(), seq: 1, values: { a: 1 } }
    const { counters } = await statusAfter('twice', message, message, message)
    expect(counters).toEqual({ messages: 1, late: 0, duplicates: 2, skewed: 0 })
    // The message, and both ends of the connection it came by.
    await vi.waitFor(async () => {
      expect(await device(stack, 'twice')).toMatchObject({ rev: 3, connectivity: { state: 'offline' } })
    }, DEADLINE)
  })
})

describe('what breaks the protocol closes that connection', () => {
  test('malformed MQTT', async () => {
    await closes('malformed', Buffer.from([0xf0, 0x00]))
    await closes('malformed', Buffer.from([0x32, 0xff, 0xff, 0xff, 0xff, 0xff]))
    // PUBLISH with QoS 3 [MQTT-3.3.1-4].
    await closes('malformed', Buffer.from([0x36, 0x05, 0x00, 0x01, 0x61, 0x00, 0x01]))
  })

  test('malformed before CONNECT', async () => {
    const socket = connect({ host: '127.0.0.1', port: stack.mqttPort })
    socket.on('error', () => undefined)
    const closed = closeOf(socket)
    socket.write(Buffer.from([0xf0, 0x00]))
    socket.resume()
    await closed
    await bystanderIsFine()
  })

  test('an oversized packet, as soon as it is announced', async () => {
    await closes('oversized', Buffer.from([0x30, 0xff, 0xff, 0xff, 0x7f]))
  })

  test('too many in flight', async () => {
    // QoS 2 without ever a PUBREL: nothing else in MQTT 3.1.1 slows a client down that much.
    const packets = Array.from({ length: 20_000 }, (_, i) =>
      generate({ ...PUBLISH, qos: 2, messageId: i + 1, topic: 'devices/flood/telemetry', payload: '{"a":1}' }),
    )
    await closes('flood', Buffer.concat(packets))
  })
})

const PUBLISH = { cmd: 'publish', dup: false, retain: false } as const
