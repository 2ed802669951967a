import { createServer } from 'node:net'
import { expect, test, vi } from 'vitest'
import { isDeviceId } from '../../processor/contract/record.ts'
import { type Behaviour, Device } from '../../simulators/fleet/behaviour.ts'
import { Fleet } from '../../simulators/fleet/fleet.ts'
import { PROFILES } from '../../simulators/fleet/profiles.ts'
import { runSimulate, type Summary } from '../../simulators/fleet/simulate.ts'
import { freePorts, Program } from '../../simulators/program.ts'
import { batchGet, device } from './answers.ts'
import { type Received, RecordingBroker } from './broker.ts'
import { Stack } from './stack.ts'

const RECEIVED = Date.UTC(2026, 10, 24, 10)
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

function samplesOf(id: string): number {
  return PROFILES.find(({ name }) => id.startsWith(`${name}-`))?.samples as number
}

/** By device what it said, without the times. */
function said(received: readonly Received[]): Map<string, unknown[]> {
  const messages = new Map<string, unknown[]>()
  for (const { clientId, topic, payload } of received) {
    expect(topic).toBe(`devices/${clientId}/telemetry`)
    const texts = [JSON.parse(payload) as { seq: number; values: unknown }].flat()
    const numbered = texts.map(({ seq, values }) => ({ seq, values }))
    messages.set(clientId, [...(messages.get(clientId) ?? []), ...numbered])
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
  for (const [id, messages] of first as Map<string, unknown[]>) {
    const numbers = Array.from({ length: 6 * samplesOf(id) }, (_, i) => i + 1)
    expect(messages.map((message) => (message as { seq: number }).seq)).toEqual(numbers)
  }
})

test('what a broker that went away did not acknowledge is sent again', async () => {
  await using broker = await RecordingBroker.open()
  const options = { host: '127.0.0.1', port: broker.port, devices: 5, ratePerSecond: 50, seed: 3, qos: 1 } as const
  await using fleet = await Fleet.open(options, Date.now)
  await vi.waitFor(() => {
    expect(fleet.counts).toMatchObject({ connected: 5, disconnects: 0 })
    expect(fleet.counts.acknowledged).toBeGreaterThan(20)
  }, DEADLINE)
  broker.cut()
  // One may be back before another has noticed.
  await vi.waitFor(() => expect(fleet.counts).toMatchObject({ connected: 5, disconnects: 5 }), DEADLINE)
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

const DIALS: Behaviour = {
  flaky: 0.3,
  sleepy: 0.2,
  outOfOrder: 0.1,
  duplicates: 0.1,
  skew: 0.3,
  mistakes: 0.05,
  firmware: 0.5,
  wills: 0.2,
  hot: 0.8,
  gateway: 1,
}

test('with all dials turned up, the statuses hold what the ledger of the fleet says, each message once', async () => {
  await using stack = await Stack.start()
  const options = { host: '127.0.0.1', port: stack.mqttPort, devices: 40, ratePerSecond: 10, seconds: 3, seed: 5 }
  // However slow the machine is: what a device drops for want of memory is another matter.
  await using fleet = await Fleet.open({ ...options, behaviour: DIALS, maxPending: 10_000 }, Date.now)
  await fleet.finished
  const { published, acknowledged, dropped, mistakes, slept, disconnects } = fleet.counts
  expect({ acknowledged, dropped }).toEqual({ acknowledged: published, dropped: 0 })
  expect(Math.min(mistakes, slept, disconnects)).toBeGreaterThan(0)
  const { delivered, deviceIds } = fleet
  await vi.waitFor(async () => {
    const statuses = await batchGet(stack, deviceIds)
    for (const [i, id] of deviceIds.entries()) {
      const { sent, acknowledged: held } = delivered[i] as (typeof delivered)[number]
      expect(held, id).toBe(sent)
      const status = statuses.get(id)
      const wills = status?.reported.lastWill === undefined ? 0 : disconnects
      expect(status?.counters.messages ?? 0, id).toBeGreaterThanOrEqual(sent)
      expect(status?.counters.messages ?? 0, id).toBeLessThanOrEqual(sent + wills)
    }
  }, DEADLINE)
  const all = [...(await batchGet(stack, deviceIds)).values()]
  const total = (name: 'late' | 'duplicates' | 'skewed') => all.reduce((sum, { counters }) => sum + counters[name], 0)
  expect(Math.min(total('late'), total('duplicates'), total('skewed'))).toBeGreaterThan(0)
  expect(all.filter(({ reported }) => reported.firmware?.value === '2.0.0').length).toBeGreaterThan(0)
  const most = Math.max(...delivered.map(({ sent }) => sent))
  expect(most).toBeGreaterThan(3 * Math.min(...delivered.map(({ sent }) => sent)))
})

/** What a fleet says and does in a minute, under all dials. */
function minuteOf(seed: number) {
  return Array.from({ length: 20 }, (_, index) => {
    const one = new Device(seed, index, DIALS)
    const acts = Array.from({ length: 60 }, (__, step) => one.next(RECEIVED + step * 1000, 1))
    return { id: one.id, will: one.manners.hasWill, acts, rest: one.manners.rest() }
  })
}

test('what devices say and do under all dials is replayed exactly by the seed', () => {
  expect(minuteOf(9)).toStrictEqual(minuteOf(9))
  expect(minuteOf(10)).not.toEqual(minuteOf(9))
})

test('gateways speak for many devices on one connection', async () => {
  await using broker = await RecordingBroker.open()
  const { code, summary } = await simulate(`--devices 20 --gateway 8 --rate 20 --seconds 0.3 --port ${broker.port}`)
  expect(code).toBe(0)
  expect(summary).toMatchObject({ published: 120, acknowledged: 120 })
  expect(new Set(broker.received.map(({ clientId }) => clientId)).size).toBe(3)
  expect(new Set(broker.received.map(({ topic }) => topic)).size).toBe(20)
})

test('who looks on is told how many of the connections are there, however many devices are behind them', async () => {
  await using broker = await RecordingBroker.open()
  const stop = new AbortController()
  const stdout = Object.assign(new Text(), { isTTY: true })
  const argv = `--devices 20 --gateway 8 --rate 20 --seconds 600 --port ${broker.port}`.split(' ')
  const running = runSimulate(argv, { stdout, stderr: new Text(), now: Date.now, signal: stop.signal })
  await vi.waitFor(() => expect(stdout.text).toContain(' s: 3/'), DEADLINE)
  stop.abort()
  expect(await running).toBe(0)
  expect(stdout.text).toContain(' s: 3/3 connected, ')
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
  ['--flaky 1.5', '--flaky'],
  ['--hot -1', '--hot'],
  ['--gateway 0', '--gateway'],
  ['--host example.org --devices 30000', '--gateway'],
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
      for (const { deviceId, counters, connectivity } of statuses) {
        expect(counters).toEqual({ messages: 5 * run * samplesOf(deviceId), late: 0, duplicates: 0, skewed: 0 })
        expect(connectivity).toMatchObject({ state: 'offline', reason: 'client disconnect' })
      }
    }, DEADLINE)
  }
  expect(Object.keys((await device(stack, 'vehicle-7-00002')).reported)).toContain('pos.lat')
})
