import { expect, it } from 'vitest'
import { MemoryLog } from '../memory-log.ts'
import { said, Workbench } from '../workbench.ts'

const large = (i: number) => said(`d${i}`, { x: 'x'.repeat(1_000) })
const LARGE = Array.from({ length: 10 }, (_, i) => large(i))

it('an owner commits no more bytes of telemetry at once than batchBytes', async () => {
  const log = new MemoryLog()
  await log.append('telemetry', LARGE)
  await using bench = await Workbench.open(log, { batchBytes: 2_500 })
  await bench.task()
  await bench.settled()
  expect(log.commits).toBe(5)
})

it('a copy takes no more bytes of the changelog at once than changelogBytes', async () => {
  const log = new MemoryLog()
  await log.claim().commit({ changelog: LARGE, deadLetters: [], next: 0 })
  await using bench = await Workbench.open(log, { changelogBytes: 2_500 })
  const store = await bench.store()
  const reached: number[] = []
  const commit = store.commit.bind(store)
  store.commit = (...of) => {
    reached.push(of[1].changelog)
    return commit(...of)
  }
  await bench.task(log.claim(), store)
  await bench.settled()
  expect(reached).toEqual([2, 4, 6, 8, 10])
})
