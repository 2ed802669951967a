import { expect, it } from 'vitest'
import { MemoryLog } from './memory-log.ts'
import { RECEIVED, said, Workbench } from './workbench.ts'

const MINUTE_MS = 60_000

it.each([
  ['far ahead of its own', 2 * MINUTE_MS, 1],
  ['a little ahead of its own', MINUTE_MS, 0],
  ['behind its own', -60 * MINUTE_MS, 0],
])('a task tells of a clock of ingest that is %s, once', async (_what, aheadMs, times) => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await bench.task()
  for (const x of [1, 2]) {
    await log.append('telemetry', [said('a', { x }, RECEIVED + aheadMs)])
    await bench.settled()
  }
  const told = bench.lines.filter((line) => line.includes('stamped later than now'))
  expect(told.map((line) => JSON.parse(line))).toEqual(
    Array.from({ length: times }, () => expect.objectContaining({ level: 40, partition: 0, aheadSeconds: 120 })),
  )
})
