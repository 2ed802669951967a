import { cp, readFile, rename, rm } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { batchGet, type DeviceAnswer } from './answers.ts'
import { messagesInLog } from './log-contents.ts'
import { ResendingDevice } from './resending-device.ts'
import { Stack, timeFor } from './stack.ts'

const PARTITIONS = 4
const DEVICES = 8
/** Before the copy, and after it. */
const MESSAGES = 1_000
const DEADLINE = { timeout: 15_000, interval: 10 }

let stack: Stack
const devices: ResendingDevice[] = []

beforeAll(async () => {
  stack = await Stack.start({ env: { PARTITIONS: String(PARTITIONS) } })
  for (let i = 0; i < DEVICES; i++) devices.push(new ResendingDevice(`device-${i}`, stack.mqttPort))
})

afterAll(async () => {
  await Promise.all(devices.map((device) => device.destroy()))
  await stack?.[Symbol.asyncDispose]()
})

const total = () => devices.reduce((sum, { acknowledged }) => sum + acknowledged, 0)

async function untilAcknowledged(count: number): Promise<void> {
  await vi.waitFor(() => expect(total()).toBeGreaterThan(count), DEADLINE)
}

/** A copy of the folder beside it, made while the process stands still. */
async function copyStandingStill(): Promise<string> {
  const { child } = stack.program
  const copy = `${stack.dataDir}-copy`
  child.kill('SIGSTOP')
  try {
    await vi.waitFor(async () => expect(await readFile(`/proc/${child.pid}/stat`, 'utf8')).toMatch(/\) T /), DEADLINE)
    await cp(stack.dataDir, copy, { recursive: true })
  } finally {
    child.kill('SIGCONT')
  }
  return copy
}

test.runIf(process.platform === 'linux')(
  'a copy made while the process stood still holds what was acknowledged by then, each once',
  timeFor(2),
  async () => {
    for (const device of devices) device.start()
    await untilAcknowledged(MESSAGES)
    const copy = await copyStandingStill()
    // What has left the process since is in the copy all the same.
    const acknowledged = devices.map((device) => device.acknowledged)
    const made = devices.map((device) => device.made)
    await untilAcknowledged(acknowledged.reduce((sum, count) => sum + count, MESSAGES))
    await Promise.all(devices.map((device) => device.finish()))
    await stack.stop()

    await rm(stack.dataDir, { recursive: true })
    await rename(copy, stack.dataDir)
    await stack.restart()
    const ids = devices.map(({ id }) => id)
    const found = await vi.waitFor(async () => {
      const answers = await batchGet(stack, ids)
      expect([...answers.values()].map(({ freshness }) => freshness.lag)).toEqual(devices.map(() => 0))
      return answers
    }, DEADLINE)
    await stack.stop()
    const inLog = await messagesInLog(stack.dataDir, PARTITIONS)
    for (const [i, { id }] of devices.entries()) {
      const { counters, sequence } = found.get(id) as DeviceAnswer
      expect(counters.messages).toBeGreaterThanOrEqual(acknowledged[i] as number)
      expect(counters.messages).toBeLessThanOrEqual(made[i] as number)
      expect(sequence?.seen).toEqual([[1, counters.messages]])
      expect(counters.messages + counters.duplicates).toBe(inLog.get(id))
    }
    expect(stack.program.stderr).not.toContain('wiped')
  },
)
