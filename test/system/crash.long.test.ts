import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { batchGet, type DeviceAnswer } from './answers.ts'
import { messagesInLog } from './log-contents.ts'
import { ResendingDevice } from './resending-device.ts'
import { Stack } from './stack.ts'

const CRASHES = 20
const PARTITIONS = 4
const DEVICES = 12
const DEADLINE = { timeout: 15_000, interval: 10 }

let stack: Stack
const devices: ResendingDevice[] = []
/** The newest answer seen of each device. */
let seen = new Map<string, DeviceAnswer>()

beforeAll(async () => {
  stack = await Stack.start({ env: { PARTITIONS: String(PARTITIONS) } })
  for (let i = 0; i < DEVICES; i++) devices.push(new ResendingDevice(`device-${i}`, stack.mqttPort))
})

afterAll(async () => {
  await Promise.all(devices.map((device) => device.destroy()))
  await stack?.[Symbol.asyncDispose]()
})

function total(count: (device: ResendingDevice) => number): number {
  return devices.reduce((sum, device) => sum + count(device), 0)
}

async function look(): Promise<Map<string, DeviceAnswer>> {
  const ids = devices.map((device) => device.id)
  return batchGet(stack, ids)
}

/** What must hold of every answer, whenever it is given. */
function check(device: ResendingDevice, answer: DeviceAnswer): void {
  const { counters, rev, reported, sequence } = answer
  const before = seen.get(device.id)
  // Every number up to the newest one applied, each once.
  expect(sequence?.seen).toEqual([[1, counters.messages]])
  expect(reported.count?.value).toBe(counters.messages)
  expect(counters.messages).toBeLessThanOrEqual(device.made)
  expect(counters.messages + counters.duplicates).toBeLessThanOrEqual(device.attempts)
  expect(counters).toMatchObject({ late: 0, skewed: 0 })
  if (before === undefined) return
  expect(rev).toBeGreaterThanOrEqual(before.rev)
  expect(counters.messages).toBeGreaterThanOrEqual(before.counters.messages)
  expect(counters.duplicates).toBeGreaterThanOrEqual(before.counters.duplicates)
}

function checkAll(answers: Map<string, DeviceAnswer>): void {
  for (const device of devices) {
    const answer = answers.get(device.id)
    if (answer !== undefined) check(device, answer)
  }
  seen = answers
}

// As long as what is waited for may take all together.
describe('kill -9 under QoS 1 load', { timeout: 2 * CRASHES * DEADLINE.timeout }, () => {
  test(`loses nothing that was acknowledged, ${CRASHES} times in a row`, async () => {
    for (let crash = 0; crash < CRASHES; crash++) {
      for (const device of devices) device.start()
      // A different moment each time: from before the first commit after the start to well into the load.
      const enough = total((device) => device.acknowledged) + [20, 300, 1_500, 4_000][crash % 4]!
      await vi.waitFor(() => expect(total((device) => device.acknowledged)).toBeGreaterThan(enough), DEADLINE)
      checkAll(await look())
      await stack.kill()
      await Promise.all(devices.map((device) => device.pause()))

      await stack.restart()
      await vi.waitFor(async () => {
        const answers = await look()
        checkAll(answers)
        for (const device of devices) {
          expect(answers.get(device.id)?.counters.messages ?? 0).toBeGreaterThanOrEqual(device.acknowledged)
        }
      }, DEADLINE)
    }
  })

  test('after it every record of the log has been applied exactly once', async () => {
    for (const device of devices) device.start()
    await Promise.all(devices.map((device) => device.finish()))
    await vi.waitFor(async () => {
      const answers = await look()
      checkAll(answers)
      for (const device of devices) expect(answers.get(device.id)?.counters.messages).toBe(device.made)
    }, DEADLINE)
    await stack.stop()
    const inLog = await messagesInLog(stack.dataDir, PARTITIONS)
    for (const device of devices) {
      const { messages, duplicates } = (seen.get(device.id) as DeviceAnswer).counters
      expect(messages + duplicates).toBe(inLog.get(device.id))
    }
  })
})
