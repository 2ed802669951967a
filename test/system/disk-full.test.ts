import { execFile, execFileSync } from 'node:child_process'
import { mkdtempSync, rmdirSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { batchGet } from './answers.ts'
import { ResendingDevice } from './resending-device.ts'
import { Stack } from './stack.ts'

const DISK_MIB = 96
const BALLAST_MIB = 48
const MIB = 1024 * 1024
const DEADLINE = { timeout: 45_000, interval: 20 }
const DEVICES = 8
const PADDING_BYTES = 8 * 1024

const run = promisify(execFile)
const disk = mkdtempSync(join(tmpdir(), 'tidemark-disk-'))
const refused = mount()
const ballast = join(disk, 'ballast')
let stack: Stack
let devices: ResendingDevice[]

/** Why this machine does not let the test have a small disk; undefined when it does. */
function mount(): string | undefined {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'tidemark-test', disk], { stdio: 'pipe' })
    return undefined
  } catch (error) {
    rmdirSync(disk)
    return (error as Error).message.trim().split('\n').at(-1) ?? 'mount failed'
  }
}

function total(count: (device: ResendingDevice) => number): number {
  return devices.reduce((sum, device) => sum + count(device), 0)
}

async function turnedAway(device: ResendingDevice): Promise<void> {
  const before = device.disconnects
  await vi.waitFor(() => expect(device.disconnects).toBeGreaterThan(before + 1), DEADLINE)
}

/** Every acknowledged message is in the status, and none twice. */
async function expectNothingLost(): Promise<void> {
  await vi.waitFor(async () => {
    const acknowledged = devices.map((device) => device.acknowledged)
    const answers = await batchGet(
      stack,
      devices.map(({ id }) => id),
    )
    for (const [index, { id }] of devices.entries()) {
      const answer = answers.get(id)
      expect(answer?.counters.messages).toBeGreaterThanOrEqual(acknowledged[index] as number)
      expect(answer?.sequence?.seen).toEqual([[1, answer?.counters.messages]])
    }
  }, DEADLINE)
}

describe.skipIf(refused !== undefined)(`a full disk${refused === undefined ? '' : ` (skipped: ${refused})`}`, () => {
  beforeAll(async () => {
    await writeFile(ballast, Buffer.alloc(BALLAST_MIB * MIB))
    stack = await Stack.start({ dataDir: join(disk, 'data'), env: { PARTITIONS: '2', LOG_LEVEL: 'fatal' } })
    devices = Array.from({ length: DEVICES }, (_, i) => new ResendingDevice(`d${i}`, stack.mqttPort, PADDING_BYTES))
  })

  afterAll(async () => {
    await Promise.all((devices ?? []).map((device) => device.destroy()))
    await stack?.[Symbol.asyncDispose]()
    await run('umount', [disk])
    await rm(disk, { recursive: true, force: true })
  })

  test('stops the acknowledgements and readiness, not the process', { timeout: 60_000 }, async () => {
    for (const device of devices) device.start()
    await vi.waitFor(async () => expect(await stack.readyz()).toBe(503), DEADLINE)
    expect(stack.program.exit).toBeUndefined()
    // Devices still try, and are turned away or left without a PUBACK.
    await Promise.all(devices.map((device) => turnedAway(device)))
    const acknowledged = total((device) => device.acknowledged)
    await Promise.all(devices.map((device) => turnedAway(device)))
    expect(total((device) => device.acknowledged)).toBe(acknowledged)
    expect(await stack.readyz()).toBe(503)
    expect((await stack.get('/livez')).status).toBe(200)
  })

  test('loses nothing, and recovers when space returns, without a restart', { timeout: 60_000 }, async () => {
    // They make no more messages, or the space would be gone again; what they hold is still to be acknowledged.
    const finished = Promise.all(devices.map((device) => device.finish()))
    expect(total((device) => device.made - device.acknowledged)).toBeGreaterThan(0)
    await rm(ballast)
    await stack.untilReady()
    await finished
    await expectNothingLost()
  })

  test('and kill -9 after it loses nothing', { timeout: 60_000 }, async () => {
    await stack.kill()
    await stack.restart()
    await expectNothingLost()
    for (const device of devices) expect(device.acknowledged).toBe(device.made)
  })
})
