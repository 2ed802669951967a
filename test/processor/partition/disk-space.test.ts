import { expect, test } from 'vitest'
import { DiskSpaceMonitor } from '../../../processor/partition/disk-space.ts'

const SECOND = 1000
const MINUTE = 60 * SECOND
const full = Object.assign(new Error('No space left on device'), { code: 'LEVEL_NO_SPACE' })
const broken = Object.assign(new Error('Input/output error'), { code: 'LEVEL_IO_ERROR' })

/** A processor whose clock goes on by `pass` alone. */
function watched() {
  let now = 0
  let wake: (() => void) | undefined
  const volume = { fullMs: 0, refusal: undefined as Error | undefined, probes: 0 }
  const fitness = new DiskSpaceMonitor({
    writer: volume,
    probe: () => {
      volume.probes++
      return volume.refusal === undefined ? Promise.resolve() : Promise.reject(volume.refusal)
    },
    clock: {
      monotonic: () => now,
      sleep: (ms) =>
        new Promise<void>((resolve) => {
          const until = now + ms
          wake = () => {
            if (now >= until) resolve()
          }
        }),
    },
  })
  const pass = async (ms: number): Promise<void> => {
    for (const until = now + ms; now < until; ) {
      now += SECOND
      wake?.()
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  void fitness.watch(new AbortController().signal)
  return { fitness, volume, pass }
}

/** How long it stays unfit when there is space again at once, in minutes. */
async function unfitFor({ fitness, volume, pass }: ReturnType<typeof watched>): Promise<number> {
  volume.fullMs = 30 * SECOND
  await pass(5 * SECOND)
  expect(fitness.unfit).toBe(true)
  volume.fullMs = 0
  let minutes = 0
  for (; fitness.unfit; minutes++) await pass(MINUTE)
  return minutes
}

test('a processor whose stores wait for space is unfit after 30 s, not before', async () => {
  const { fitness, volume, pass } = watched()
  volume.fullMs = 30 * SECOND - 1
  await pass(5 * SECOND)
  expect([fitness.unfit, volume.probes]).toEqual([false, 0])
  volume.fullMs = 30 * SECOND
  await pass(5 * SECOND)
  expect(fitness.unfit).toBe(true)
})

test('it finds out by itself when there is space, and says until then that there is none', async () => {
  const { fitness, volume, pass } = watched()
  volume.fullMs = 30 * SECOND
  await pass(5 * SECOND)
  // Others have its partitions: nothing waits any more.
  volume.fullMs = 0
  volume.refusal = full
  await pass(30 * MINUTE)
  expect(fitness.unfit).toBe(true)
  expect(fitness.problem).toBe('the stores cannot be written: No space left on device: free space on its volume')
  expect(volume.probes).toBe((30 * MINUTE) / (5 * SECOND))
  volume.refusal = undefined
  await pass(5 * SECOND)
  expect([fitness.unfit, fitness.problem]).toEqual([false, undefined])
})

test('it stays out for some minutes, and longer each time, but not after an hour without trouble', async () => {
  const processor = watched()
  const minutes: number[] = []
  for (let time = 0; time < 6; time++) minutes.push(await unfitFor(processor))
  expect(minutes).toEqual([5, 10, 20, 40, 60, 60])
  await processor.pass(61 * MINUTE)
  expect(await unfitFor(processor)).toBe(5)
})

test('it is no reason to stay out that the database refuses for another reason: who works with it sees to that', async () => {
  const { fitness, volume, pass } = watched()
  volume.fullMs = 30 * SECOND
  await pass(5 * SECOND)
  volume.fullMs = 0
  volume.refusal = broken
  await pass(5 * MINUTE)
  expect([fitness.unfit, fitness.problem]).toEqual([false, undefined])
})
