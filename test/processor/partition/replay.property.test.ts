import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MemoryLog } from '../memory-log.ts'
import { telemetry } from '../status/arbitraries.ts'
import { Workbench } from '../workbench.ts'

const telemetries = fc.array(telemetry, { minLength: 1, maxLength: 60 })
const size = fc.integer({ min: 1, max: 70 })
const text = (value: Uint8Array | null) => Buffer.from(value ?? []).toString()

/** What is in the store, in the changelog's last records, and in a second store restored from it, compacted or not. */
async function outcome(log: MemoryLog, batchRecords: number, cacheEntries: number, restarts: number, compact: boolean) {
  await using bench = await Workbench.open(log, { batchRecords, cacheEntries })
  for (let i = 0; i < restarts; i++) {
    const target = i + 1
    const commits = log.commits
    const task = await bench.task()
    log.beforeCommit = async () => {
      // Fences the task in the middle of its work, as a rebalance would.
      if (log.commits - commits >= target) log.claim()
    }
    await Promise.race([task.done.catch(() => {}), bench.settled()])
    log.beforeCommit = () => {}
    await task.stop().catch(() => {})
  }
  await bench.task()
  await bench.settled()
  const store = await bench.store()
  const last = new Map(log.records('status').map(({ key, value }) => [key, value]))
  const changelog = Array.from(last).flatMap(([key, value]) =>
    value === null ? [] : [[key ?? '', text(value)] as const],
  )
  const entries = async (from: typeof store) =>
    (await from.range(undefined, 100)).map(([key, value]) => [key, text(value)])
  if (compact) log.compact()
  await using copy = await Workbench.open(log, { changelogRecords: 5 })
  await copy.standby()
  await copy.settled()
  const restored = await copy.store()
  return {
    store: await entries(store),
    changelog: changelog.sort(([a], [b]) => (a < b ? -1 : 1)),
    restored: await entries(restored),
    counts: [store.count, restored.count, await restored.recount()],
    // Within a batch, they are in no order.
    deadLetters: log
      .records('dead-letters')
      .map(({ headers }) => headers)
      .sort((a, b) => Number(a?.offset) - Number(b?.offset)),
  }
}

describe('a partition', () => {
  it('holds the same in store, changelog and restored copy, whatever the batches, the cache and the claims', async () => {
    await fc.assert(
      fc.asyncProperty(
        telemetries,
        size,
        fc.integer({ min: 1, max: 5 }),
        fc.nat(2),
        fc.boolean(),
        async (records, batch, cache, restarts, compact) => {
          const [whole, parted] = [new MemoryLog(), new MemoryLog()]
          await whole.append('telemetry', records)
          await parted.append('telemetry', records)
          const expected = await outcome(whole, 100, 100, 0, false)
          const actual = await outcome(parted, batch, cache, restarts, compact)
          expect(actual).toEqual(expected)
          expect(actual.changelog).toEqual(actual.store)
          expect(actual.restored).toEqual(actual.store)
          expect(new Set(actual.counts)).toEqual(new Set([actual.store.length]))
        },
      ),
      { numRuns: 25 },
    )
  })
})
