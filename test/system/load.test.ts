import { expect, test } from 'vitest'
import { generateLoad, type LoadOptions } from '../../simulators/load/load.ts'
import { loadDeviceId, loadTemperature, SEQ_START } from '../../simulators/load/load-connection.ts'
import { RecordingBroker } from './broker.ts'

const OPTIONS: Omit<LoadOptions, 'port'> = {
  host: '127.0.0.1',
  prefix: 'load',
  connections: 3,
  devices: 50,
  window: 7,
  ratePerSecond: undefined,
  messages: 1_000,
  seconds: Infinity,
}

test('every message is a well-formed one of its device, in order, and the ledger knows the last', async () => {
  await using broker = await RecordingBroker.open()
  const { report, lastAcknowledged } = await generateLoad(
    { ...OPTIONS, port: broker.port },
    new AbortController().signal,
  )
  expect(report).toMatchObject({ published: 1_000, acknowledged: 1_000 })
  const last = new Map<string, number>()
  for (const { topic, payload } of broker.received) {
    expect(payload).toHaveLength(report.payloadBytes)
    const { ts, seq, values } = JSON.parse(payload) as { ts: number; seq: number; values: { temperature: number } }
    const id = topic.split('/')[1] as string
    expect(Math.abs(Date.now() - ts)).toBeLessThan(60_000)
    expect(seq).toBe(last.get(id) === undefined ? SEQ_START : (last.get(id) as number) + 1)
    expect(values.temperature).toBe(loadTemperature(Number(id.slice(-7)), seq))
    last.set(id, seq)
  }
  expect(last.size).toBe(50)
  for (const [device, seq] of lastAcknowledged.entries()) expect(last.get(loadDeviceId('load', device))).toBe(seq)
})

test('a rate is kept to until the signal', async () => {
  await using broker = await RecordingBroker.open()
  const stop = new AbortController()
  const options = { ...OPTIONS, port: broker.port, messages: Infinity, ratePerSecond: 2_000 }
  const running = generateLoad(options, stop.signal)
  await expect.poll(() => broker.received.length, { timeout: 10_000 }).toBeGreaterThan(100)
  stop.abort()
  const { report } = await running
  expect(report.acknowledged).toBe(broker.received.length)
  expect(report.published).toBe(report.acknowledged)
})

test('a rate may be less than a message in each look', async () => {
  await using broker = await RecordingBroker.open()
  const options = { ...OPTIONS, port: broker.port, messages: 1, connections: 1, ratePerSecond: 1 }
  const { report } = await generateLoad(options, new AbortController().signal)
  expect(report.acknowledged).toBe(1)
})

test('a lost connection is an error', async () => {
  await using broker = await RecordingBroker.open()
  const options = { ...OPTIONS, port: broker.port, messages: Infinity }
  const running = generateLoad(options, new AbortController().signal)
  const failure = expect(running).rejects.toThrow(/^connection load-connection-\d: /)
  await expect.poll(() => broker.received.length, { timeout: 10_000 }).toBeGreaterThan(100)
  broker.cut()
  await failure
})
