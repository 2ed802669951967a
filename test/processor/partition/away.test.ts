import { expect, it, vi } from 'vitest'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said, Workbench } from '../workbench.ts'

const HOUR_MS = 3600_000
const changes = (count: number, x: number) => Array.from({ length: count }, (_, i) => said(`d${i}`, `{"x":${x}}`))

it('a copy that was away, and began to catch up, is as old as before until it has', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log, { changelogRecords: 10 })
  await log.claim().commit({ changelog: changes(10, 1), deadLetters: [], next: 0 })
  const first = await bench.standby()
  await bench.settled()
  await first.stop()
  await log.claim().commit({ changelog: changes(90, 2), deadLetters: [], next: 0 })
  bench.now += 20 * HOUR_MS
  log.readableTo = 50
  const second = await bench.standby()
  const { store } = second.role
  await vi.waitFor(() => expect(store.checkpoint?.changelog).toBe(50))
  await second.stop()
  log.readableTo = Number.POSITIVE_INFINITY
  // Of a device that was deleted after the copy went, the tombstone may be gone in the part it has not read.
  bench.now += 5 * HOUR_MS
  await bench.standby()
  await bench.settled()
  expect(bench.lines.join()).toContain('tombstones may be gone')
})

it.each(['task', 'standby'] as const)('a %s that slept longer than tombstones are kept notes nothing', async (kind) => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.claim().commit({ changelog: changes(1, 1), deadLetters: [], next: 0 })
  const { role } = await bench[kind]()
  await bench.settled()
  const since = () => role.store.checkpoint?.since
  bench.now += log.deleteRetentionMs
  await role.refreshLag()
  expect(since()).toBe(bench.now)
  const there = bench.now
  bench.now += log.deleteRetentionMs + 1
  await role.refreshLag()
  expect(since()).toBe(there)
  expect(there).toBe(RECEIVED + log.deleteRetentionMs)
})

it.each(['task', 'standby'] as const)('a %s notes that it was there when the clock is set back', async (kind) => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.claim().commit({ changelog: changes(1, 1), deadLetters: [], next: 0 })
  const { role } = await bench[kind]()
  await bench.settled()
  bench.now -= 2 * log.deleteRetentionMs
  await role.refreshLag()
  expect(role.store.checkpoint?.since).toBe(bench.now)
})
