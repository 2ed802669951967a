import { expect, it, vi } from 'vitest'
import { MemoryLog } from '../memory-log.ts'
import { said, Workbench } from '../workbench.ts'

const HOUR = 3600_000

/** The waits of the roles of a bench, ms. */
function waits({ parts: { clock } }: Workbench): number[] {
  const all: number[] = []
  const { sleep } = clock
  Object.assign(clock, {
    sleep: (ms: number, signal: AbortSignal) => {
      all.push(ms)
      return sleep(ms, signal)
    },
  })
  return all
}

it('an owner waits no longer when the clock is set back during a batch', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log, { minCommitIntervalMs: 10 })
  const waited = waits(bench)
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.task()
  await bench.settled()
  log.beforeCommit = () => void (bench.set -= HOUR)
  await log.append('telemetry', [said('a', { x: 2 })])
  await vi.waitFor(() => expect(waited).toEqual([10]))
})

it('a standby waits no longer when the clock is set back during a batch', async () => {
  const log = new MemoryLog()
  await using owner = await Workbench.open(log)
  await using other = await Workbench.open(log, { minCommitIntervalMs: 10 })
  const waited = waits(other)
  await owner.task()
  const { store } = (await other.standby()).role
  await owner.settled()
  await other.settled()
  const commit = store.commit.bind(store)
  store.commit = (...write) => {
    other.set -= HOUR
    return commit(...write)
  }
  await log.append('telemetry', [said('a', { x: 2 })])
  await vi.waitFor(() => expect(waited).toEqual([10]))
})

it('an owner answers as a standby does after a commit took long by any clock', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const { role } = await bench.task()
  await bench.settled()
  const { reached, letGo } = log.holdCommits()
  await log.append('telemetry', [said('a', { x: 2 })])
  await reached
  bench.set += HOUR
  const early = role.doubtful
  bench.set -= 2 * HOUR
  bench.now += 100
  const late = role.doubtful
  letGo()
  expect([early, late]).toEqual([false, true])
})
