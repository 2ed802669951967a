import { createServer } from 'node:net'
import { expect, test, vi } from 'vitest'
import { isDeviceId } from '../../processor/contract/telemetry.ts'
import { Fleet } from '../../simulators/fleet.ts'
import { freePorts, Program } from '../../simulators/program.ts'
import { runSimulate, type Summary } from '../../simulators/simulate.ts'
import { batchGet, device } from './answers.ts'
import { type Received, RecordingBroker } from './broker.ts'
import { Stack } from './stack.ts'

const DEADLINE = { timeout: 10_000, interval: 10 }

class Text {
  text = ''
  write(text: string): void {
    this.text += text
  }
}

async function simulate(args: string, signal = new AbortController().signal) {
  const stdout = new Text()
  const stderr = new Text()
  const code = await runSimulate(args.split(' '), { stdout, stderr, now: Date.now, signal })
  const lines = stdout.text.trim().split('\n')
  const summary = code === 2 ? undefined : (JSON.parse(lines.at(-1) as string) as { summary: Summary }).summary
  return { code, stderr: stderr.text, lines, summary }
}

/** By device what it said, without the times. */
function said(received: readonly Received[]): Map<string, unknown[]> {
  const messages = new Map<string, unknown[]>()
  for (const { clientId, topic, payload } of received) {
    expect(topic).toBe(`devices/${clientId}/telemetry`)
    const { seq, values } = JSON.parse(payload) as { seq: number; values: unknown }
    messages.set(clientId, [...(messages.get(clientId) ?? []), { seq, values }])
  }
  return messages
}

test('the same seed gives the same devices with the same readings, another seed others', async () => {
  const runs: Received[][] = []
  for (const seed of [7, 7, 8]) {
    await using broker = await RecordingBroker.open()
    const { code, summary } = await simulate(`--devices 8 --rate 20 --seconds 0.3 --seed ${seed} --port ${broker.port}`)
    expect(code).toBe(0)
    expect(summary).toMatchObject({ published: 48, acknowledged: 48, failed: 0, devices: 8, seed })
    runs.push(broker.received)
  }
  const [first, second, other] = runs.map((received) => said(received))
  expect(second).toEqual(first)
  expect(other).not.toEqual(first)
  expect([...(first as Map<string, unknown[]>).keys()].every(isDeviceId)).toBe(true)
  for (const messages of (first as Map<string, unknown[]>).values()) {
    expect(messages.map((message) => (message as { seq: number }).seq)).toEqual([1, 2, 3, 4, 5, 6])
  }
})

test('what a broker that went away did not acknowledge is sent again', async () => {
  await using broker = await RecordingBroker.open()
  const options = { host: '127.0.0.1', port: broker.port, devices: 5, ratePerSecond: 50, seed: 3, qos: 1 } as const
  await using fleet = await Fleet.open(options, Date.now)
  await vi.waitFor(() => expect(fleet.counts.acknowledged).toBeGreaterThan(20), DEADLINE)
  broker.cut()
  await vi.waitFor(() => expect(fleet.counts).toMatchObject({ connected: 0 }), DEADLINE)
  await vi.waitFor(() => expect(fleet.counts).toMatchObject({ connected: 5 }), DEADLINE)
  fleet.stop()
  await fleet.finished
  const { published, acknowledged, dropped } = fleet.counts
  expect(acknowledged + dropped).toBe(published)
  for (const [id, messages] of said(broker.received)) {
    // Nothing between the first and the last is missing but what the device had to drop.
    const numbers = new Set(messages.map((message) => (message as { seq: number }).seq))
    expect(fleet.deviceIds).toContain(id)
    expect(numbers.size).toBeGreaterThanOrEqual(Math.max(...numbers) - dropped)
  }
})

test('a signal ends it early, with its summary', async () => {
  await using broker = await RecordingBroker.open()
  const stop = new AbortController()
  const running = simulate(`--devices 3 --rate 50 --seconds 600 --port ${broker.port}`, stop.signal)
  await vi.waitFor(() => expect(broker.received.length).toBeGreaterThan(10), DEADLINE)
  stop.abort()
  const { code, summary } = await running
  expect(code).toBe(0)
  expect(summary?.acknowledged).toBe(broker.received.length)
  expect(summary?.ackMs?.p99).toBeGreaterThanOrEqual(summary?.ackMs?.p50 as number)
})

test.each([
  ['--devices 0', '--devices'],
  ['--devices 1e9', '--devices'],
  ['--devices ten', '--devices'],
  ['--rate -1', '--rate'],
  ['--rate NaN', '--rate'],
  ['--seconds 0', '--seconds'],
  ['--seed 1.5', '--seed'],
  ['--port 65536', '--port'],
  ['--qos 3', '--qos'],
  ['--colour red', '--colour'],
  ['hello', 'hello'],
])('simulate %s is refused in one line', async (args, named) => {
  const { code, stderr } = await simulate(args)
  expect(code).toBe(2)
  expect(stderr.trimEnd().split('\n')).toHaveLength(1)
  expect(stderr).toContain(named)
})

test('no broker at the port is one clear line', async () => {
  const [port] = await freePorts(1)
  const { code, stderr } = await simulate(`--port ${port}`)
  expect(code).toBe(2)
  expect(stderr).toMatch(new RegExp(`^simulate: .*127\\.0\\.0\\.1:${port}.*ECONNREFUSED.*\\n$`))
})

test('something else at the port is one clear line', async () => {
  const server = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(0, '127.0.0.1')
  await vi.waitFor(() => expect(server.listening).toBe(true))
  const { port } = server.address() as { port: number }
  const { code, stderr } = await simulate(`--port ${port}`)
  server.close()
  expect(code).toBe(2)
  expect(stderr.trimEnd().split('\n')).toHaveLength(1)
})

test('the fleet of `node main.ts simulate` is seen over HTTP, and a second run is no duplicate', async () => {
  await using stack = await Stack.start()
  const args = `simulate --devices 40 --rate 5 --seconds 1 --seed 7 --port ${stack.mqttPort}`.split(' ')
  for (const run of [1, 2]) {
    const program = Program.main(args)
    expect(await program.exited, program.stderr).toEqual({ code: 0, signal: null })
    const { summary } = JSON.parse(program.stdout.trim().split('\n').at(-1) as string) as { summary: Summary }
    expect(summary).toMatchObject({ published: 200, acknowledged: 200, failed: 0 })
    await vi.waitFor(async () => {
      const page = await stack.json<{ items: { deviceId: string }[] }>('/v1/devices?limit=100')
      const statuses = [
        ...(
          await batchGet(
            stack,
            page.items.map(({ deviceId }) => deviceId),
          )
        ).values(),
      ]
      expect(statuses).toHaveLength(40)
      for (const { counters, connectivity } of statuses) {
        expect(counters).toEqual({ messages: 5 * run, late: 0, duplicates: 0, skewed: 0 })
        expect(connectivity).toMatchObject({ state: 'offline', reason: 'client disconnect' })
      }
    }, DEADLINE)
  }
  expect(Object.keys((await device(stack, 'vehicle-7-00002')).reported)).toContain('pos.lat')
})
