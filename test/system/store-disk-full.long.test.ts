import { execFileSync } from 'node:child_process'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { batchGet } from './answers.ts'
import { ResendingDevice } from './resending-device.ts'
import { Stack } from './stack.ts'

const MIB = 1024 * 1024
const DISK_MIB = 96
const BALLAST_MIB = 92
const DEADLINE = { timeout: 45_000, interval: 20 }
const DEVICES = 8
const PADDING_BYTES = 64 * 1024

/** A volume at `path`; why there can be none where there can not. */
function mount(path: string): string | undefined {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'tidemark-test', path], { stdio: 'pipe' })
  } catch (error) {
    return (error as Error).message
  }
  onTestFinished(() => void execFileSync('umount', ['-l', path]))
  return undefined
}

test('a full volume of the stores is a problem of the process, and what the log has is applied when it has space', {
  timeout: 90_000,
}, async ({ skip }) => {
  const dataDir = await temporaryFolder()
  onTestFinished(() => removeFolder(dataDir))
  const stores = join(dataDir, 'tidemark-1')
  await mkdir(stores)
  const unable = mount(stores)
  if (unable !== undefined) skip(unable)
  const ballast = join(stores, 'ballast')
  await writeFile(ballast, Buffer.alloc(BALLAST_MIB * MIB))
  await using stack = await Stack.start({ dataDir, env: { PARTITIONS: '1', LOG_LEVEL: 'fatal' } })

  const devices = Array.from({ length: DEVICES }, (_, i) => new ResendingDevice(`d${i}`, stack.mqttPort, PADDING_BYTES))
  onTestFinished(async () => void (await Promise.all(devices.map((device) => device.destroy()))))
  for (const device of devices) device.start()
  // A busy process may be not ready for another reason before.
  await vi.waitFor(async () => {
    const problem = await (await stack.get('/readyz')).text()
    expect(problem).toMatch(/partition 0: the store cannot be written since .*No space left.*: free space/)
  }, DEADLINE)
  expect(await (await stack.get('/metrics')).text()).toMatch(/tidemark_unwritable_stores\{processor="tidemark-1"\} 1/)
  // The log has space, and takes what devices say.
  const counts = devices.map(({ acknowledged }) => acknowledged)
  await vi.waitFor(() => {
    for (const [i, device] of devices.entries()) expect(device.acknowledged).toBeGreaterThan(counts[i] as number)
  }, DEADLINE)
  await Promise.all(devices.map((device) => device.finish()))

  await rm(ballast)
  await stack.untilReady()
  await vi.waitFor(async () => {
    const answers = await batchGet(
      stack,
      devices.map(({ id }) => id),
    )
    for (const { id, made } of devices) expect(answers.get(id)?.sequence?.seen).toEqual([[1, made]])
  }, DEADLINE)
})
