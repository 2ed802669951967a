import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { connectAsync } from 'mqtt'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { partitionOf } from '../../processor/contract/partition.ts'
import { freePorts, Program, removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { device } from './answers.ts'
import { Stack, timeFor } from './stack.ts'

const DEADLINE = { timeout: 10_000, interval: 10 }
const ISO = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
const run = promisify(execFile)

let stack: Stack

beforeAll(async () => {
  stack = await Stack.start({ env: { PARTITIONS: '4' } })
})

afterAll(async () => {
  await stack?.[Symbol.asyncDispose]()
})

async function publish(deviceId: string, payload: string, clientId = 'some-tool'): Promise<void> {
  const client = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port: stack.mqttPort, clientId })
  await client.publishAsync(`devices/${deviceId}/telemetry`, payload, { qos: 1 })
  await client.endAsync()
}

const mosquitto = await run('mosquitto_pub', ['--help']).then(
  () => true,
  (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
)

test('a start says what README shows', timeFor(2), async () => {
  const [mqttPort, httpPort] = await freePorts(2)
  const environment = { MQTT_PORT: String(mqttPort), HTTP_PORT: String(httpPort), LOG_LEVEL: 'warn' }
  const folder = await temporaryFolder()
  const demo = Program.main(['up', '--demo'], { ...environment, DATA_DIR: folder })
  await vi.waitFor(() => expect(demo.stdout).toContain('Ctrl-C'), { ...DEADLINE, timeout: 30_000 })
  await demo.stop()
  await removeFolder(folder)
  const said = demo.stdout
    .replaceAll(`:${mqttPort}`, ':1883')
    .replaceAll(`-p ${mqttPort}`, '-p 1883')
    .replaceAll(`:${httpPort}`, ':8080')
    .replaceAll(folder, './data')
  const readme = await readFile(join(import.meta.dirname, '../../README.md'), 'utf8')
  const [shown = ''] = /^Tidemark is ready[^`]+/m.exec(readme) ?? []
  expect(said.slice(0, shown.length)).toBe(shown)
  // Shells read ? and & as something else.
  for (const [, url] of said.matchAll(/curl (\S+)/g)) if (url?.includes('?')) expect(url).toMatch(/^'.*'$/)
})

test('what a device published is its status', async () => {
  await publish('truck-17', '{"temperature":21.5,"pos":{"lat":52.1,"lon":4.3}}')
  await vi.waitFor(async () => {
    expect(await device(stack, 'truck-17')).toEqual({
      deviceId: 'truck-17',
      // The message, the connection that spoke for the device, and its end.
      rev: 3,
      reported: {
        temperature: { value: 21.5, at: ISO },
        'pos.lat': { value: 52.1, at: ISO },
        'pos.lon': { value: 4.3, at: ISO },
      },
      connectivity: { state: 'offline', since: ISO, reason: 'client disconnect', session: expect.any(Number) },
      firstSeenAt: ISO,
      lastSeenAt: ISO,
      counters: { messages: 1, late: 0, duplicates: 0, skewed: 0 },
      freshness: { partition: partitionOf('truck-17', 4), offset: expect.any(Number), lag: 0, servedBy: 'owner' },
    })
  }, DEADLINE)
})

test('a device is online while it is connected', async () => {
  const client = await connectAsync({ protocol: 'mqtt', host: '127.0.0.1', port: stack.mqttPort, clientId: 'pump-1' })
  await client.publishAsync('devices/pump-1/telemetry/pressure', '3.2', { qos: 1 })
  const connectivity = async () => (await device(stack, 'pump-1')).connectivity
  const session = expect.any(Number)
  await vi.waitFor(async () => {
    expect(await connectivity()).toEqual({ state: 'online', since: ISO, reason: 'connected', session })
  }, DEADLINE)
  await client.endAsync()
  await vi.waitFor(async () => {
    expect(await connectivity()).toEqual({ state: 'offline', since: ISO, reason: 'client disconnect', session })
  }, DEADLINE)
})

test('a time and a number of its own are kept', async () => {
  await publish('pump-2', '{"ts":"2026-01-02T03:04:05Z","seq":7,"values":{"rpm":1200}}')
  await publish('pump-2', '{"ts":"2026-01-02T03:04:05Z","seq":7,"values":{"rpm":1200}}')
  await vi.waitFor(async () => {
    const status = await device(stack, 'pump-2')
    expect(status.reported).toEqual({ rpm: { value: 1200, at: '2026-01-02T03:04:05.000Z' } })
    expect(status.counters).toEqual({ messages: 1, late: 0, duplicates: 1, skewed: 0 })
  }, DEADLINE)
})

test.skipIf(!mosquitto)('mosquitto_pub can do it too', async () => {
  const args = [
    '-p',
    String(stack.mqttPort),
    '-q',
    '1',
    '-t',
    'devices/truck-18/telemetry',
    '-m',
    '{"temperature":21.5}',
  ]
  await run('mosquitto_pub', args)
  const status = await vi.waitFor(() => device(stack, 'truck-18'), DEADLINE)
  expect(status.reported).toEqual({ temperature: { value: 21.5, at: ISO } })
})

test('a restart keeps it', timeFor(2), async () => {
  const { freshness, ...before } = await device(stack, 'truck-17')
  expect(await stack.stop()).toEqual({ code: 0, signal: null })
  await stack.restart()
  await vi.waitFor(async () => {
    const after = await device(stack, 'truck-17')
    expect(after).toEqual({ ...before, freshness: { ...freshness, offset: expect.any(Number), lag: 0 } })
    expect(after.freshness.offset).toBeGreaterThanOrEqual(freshness.offset)
  }, DEADLINE)
})
