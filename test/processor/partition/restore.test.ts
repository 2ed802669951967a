import { expect, it, vi } from 'vitest'
import { StoreCorruptedError } from '../../../processor/contract/errors.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { RestorePriority } from '../../../processor/runtime/limiter.ts'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said, statusOf, Workbench } from '../workbench.ts'

const fleet = (count: number, x: number) => Array.from({ length: count }, (_, i) => said(`d${i}`, { x }))

/** A long wait lasts until it is told to end, a short one no time. */
const untilTold = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (ms < 100) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })

/**
 * Gives the bench a RestorePriority whose waits last until they are told to end. What is returned resolves when the standby of
 * partition 1 has asked for its turn, or, by `steps`, has not: then it is seen to begin too early.
 */
function yielding(bench: Workbench, steps: readonly string[]): () => Promise<void> {
  const restorePriority = new RestorePriority(untilTold)
  Object.assign(bench.parts, { restorePriority })
  const turn = vi.spyOn(restorePriority, 'turn')
  return async () => {
    await vi.waitFor(() => expect(turn.mock.calls.length > 0 || steps.includes('status 1')).toBe(true))
    // Without I/O: enough to begin in for who has asked and does not wait.
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
  }
}

async function filled(log: MemoryLog, rounds: number): Promise<void> {
  await using bench = await Workbench.open(log, { batchRecords: 20 })
  for (let x = 0; x < rounds; x++) await log.append('telemetry', fleet(100, x))
  await bench.task()
  await bench.settled()
}

it('gives a new copy all devices, counts them, and goes on with the input', async () => {
  const log = new MemoryLog()
  await filled(log, 3)
  log.compact()
  await using bench = await Workbench.open(log, { changelogRecords: 7 })
  await log.append('telemetry', [said('d5', { x: 9 }), said('new', { x: 1 })])
  await bench.task()
  await bench.settled()
  const store = await bench.store()
  expect(store.count).toBe(101)
  expect(await store.recount()).toBe(101)
  expect(statusOf((await bench.reader.getMany(0, ['d5']))[0]).counters.messages).toBe(4)
})

it('goes on at its checkpoint after it was aborted, and answers nobody before it is whole', async () => {
  const log = new MemoryLog()
  await filled(log, 1)
  await using bench = await Workbench.open(log, { changelogRecords: 10 })
  log.readableTo = 50
  const standby = await bench.standby()
  const { store } = standby.role
  await vi.waitFor(() => expect(store.checkpoint?.changelog).toBe(50))
  await expect(bench.reader.getMany(0, ['d1'])).rejects.toMatchObject({ code: 'PARTITION_UNAVAILABLE' })
  expect((await bench.reader.copies())[0]).toMatchObject({ state: 'restoring', offset: 0 })
  await standby.stop()
  const { checkpoint } = store
  expect(checkpoint).toMatchObject({ changelog: 50, input: 0, whole: false })
  log.readableTo = Number.POSITIVE_INFINITY
  await bench.reopen()
  await bench.task()
  await bench.settled()
  expect(bench.lines.join()).toContain('"from":50,"to":100,"plan":"resume"')
  expect((await bench.store()).count).toBe(100)
  expect((await bench.reader.getMany(0, ['d99']))[0]?.freshness.offset).toBe(100)
})

it('does not claim input that compaction hides behind what is still to be read', async () => {
  const log = new MemoryLog()
  await filled(log, 5)
  log.compact()
  await using bench = await Workbench.open(log, { changelogRecords: 10 })
  const store = await bench.store()
  const seen: number[] = []
  const commit = store.commit.bind(store)
  store.commit = (writes, reached, added) => {
    seen.push(reached.input)
    return commit(writes, reached, added)
  }
  await bench.task(log.claim(), store)
  await bench.settled()
  expect(seen.slice(0, -1).every((input) => input === 0)).toBe(true)
  expect(seen.at(-1)).toBe(500)
})

it('follows the owner, and knows the input offset and the number of devices from the changelog', async () => {
  const log = new MemoryLog()
  await using owner = await Workbench.open(log)
  await using other = await Workbench.open(log)
  await owner.task()
  await other.standby()
  await log.append('telemetry', fleet(100, 1))
  await owner.settled()
  await other.settled()
  await log.append('telemetry', [said('d0', { x: 2 }), said('more', { x: 2 })])
  await owner.settled()
  await other.settled()
  const [answer] = await other.reader.getMany(0, ['more'])
  expect(statusOf(answer).rev).toBe(1)
  expect(answer?.freshness).toEqual({ partition: 0, offset: 102, changelog: 102, lag: 0, servedBy: 'standby' })
  expect((await other.reader.copies())[0]).toMatchObject({ role: 'standby', state: 'running', devices: 101, lag: 0 })
  expect(await (await other.store()).range(undefined, 200)).toEqual(await (await owner.store()).range(undefined, 200))
})

it('a standby wipes its store as often as it is damaged, once it was whole again', async () => {
  const log = new MemoryLog()
  await using owner = await Workbench.open(log)
  await using other = await Workbench.open(log)
  await owner.task()
  const { store } = (await other.standby()).role
  const commit = store.commit.bind(store)
  let damaged = false
  store.commit = async (...of) => {
    if (!damaged) return commit(...of)
    damaged = false
    throw new StoreCorruptedError('bad block')
  }
  for (let x = 1; x <= 2; x++) {
    await other.settled()
    damaged = true
    await log.append('telemetry', [said('a', { x })])
    await owner.settled()
  }
  await other.settled()
  expect(other.lines.filter((line) => line.includes('store wiped: it is damaged'))).toHaveLength(2)
  expect(statusOf((await other.reader.getMany(0, ['a']))[0]).rev).toBe(2)
})

it('is promoted where it stands: catches up to the end of the claim, and goes on', async () => {
  const log = new MemoryLog()
  await using owner = await Workbench.open(log)
  await using other = await Workbench.open(log)
  const first = await owner.task()
  const standby = await other.standby()
  await log.append('telemetry', fleet(50, 1))
  await owner.settled()
  await other.settled()
  await standby.stop()
  await log.append('telemetry', fleet(50, 2))
  await owner.settled()
  await log.append('telemetry', fleet(50, 3))
  await other.task()
  await other.settled()
  await expect(first.done).rejects.toMatchObject({ code: 'CLAIM_FENCED' })
  expect(other.lines.join()).toContain('"from":50,"to":100,"plan":"resume"')
  expect(statusOf((await other.reader.getMany(0, ['d7']))[0])).toMatchObject({ rev: 3, reported: { x: { value: 3 } } })
})

it('starts anew after longer than the changelog keeps tombstones', async () => {
  const log = new MemoryLog()
  log.deleteRetentionMs = 3600_000
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 })])
  const task = await bench.task()
  await bench.settled()
  await task.stop()
  await log.claim().commit({ changelog: [{ ...said('b', ''), value: null }], deadLetters: [], next: 1 })
  bench.now = RECEIVED + log.deleteRetentionMs + 1000
  await bench.task()
  await bench.settled()
  expect(bench.lines.join()).toContain('tombstones may be gone')
  expect(statusOf((await bench.reader.getMany(0, ['a']))[0]).rev).toBe(1)
})

it.each(['task', 'standby'] as const)('keeps the copy of a %s that was idle for long, but there', async (kind) => {
  class Marked extends MemoryLog {
    override async bounds(of: Parameters<MemoryLog['bounds']>[0]): ReturnType<MemoryLog['bounds']> {
      const { start, end } = await super.bounds(of)
      // Where commits are transactions a reader finds the marker of the last one at the end: an owner has not read it.
      return { start, end: end + Number(kind === 'task' && of.topic === 'status' && marked) }
    }
  }
  let marked = false
  const log = new Marked()
  await using owner = await Workbench.open(log)
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 })])
  if (kind === 'standby') await owner.task()
  const running = await bench[kind]()
  await bench.settled()
  bench.now = RECEIVED + 23 * 3600_000
  marked = true
  await running.role.refreshLag()
  marked = false
  await running.stop()
  await log.claim().commit({ changelog: [said('b', '{}')], deadLetters: [], next: 1 })
  bench.now = RECEIVED + 46 * 3600_000
  await bench.standby()
  await bench.settled()
  expect(bench.lines.join()).not.toContain('wiped')
})

it('notes now and then that an idle copy lacks nothing, and not when its claim may be over', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 })])
  const claim = { ...log.claim(), held: true }
  const { role } = await bench.task(claim)
  await bench.settled()
  const since = () => role.store.checkpoint?.since
  bench.now += 3600_000 - 1
  await role.refreshLag()
  expect(since()).toBe(RECEIVED)
  bench.now += 1
  await role.refreshLag()
  expect(since()).toBe(bench.now)
  const there = bench.now
  claim.held = false
  bench.now += 24 * 3600_000
  await role.refreshLag()
  expect(since()).toBe(there)
})

it('deletes what the changelog deletes', async () => {
  const log = new MemoryLog()
  await filled(log, 1)
  await log.claim().commit({ changelog: [{ ...said('d3', ''), value: null }], deadLetters: [], next: 100 })
  await using bench = await Workbench.open(log)
  await bench.task()
  await bench.settled()
  expect((await bench.reader.getMany(0, ['d3']))[0]?.status).toBeUndefined()
})

it('asks for what came in while it brings its store there, and lets a standby begin when that is committed', async () => {
  const log = new MemoryLog(2)
  await filled(log, 1)
  const device = ['d0', 'd1', 'd2', 'd3'].find((id) => partitionOf(id, 2) === 0) as string
  await log.append('telemetry', [said(device, { x: 9 })])
  await using bench = await Workbench.open(log)
  const steps: string[] = []
  const standbyAsked = yielding(bench, steps)
  const follow = log.follow.bind(log)
  log.follow = (of, ...rest) => {
    steps.push(`${of.topic} ${of.index}`)
    return follow(of, ...rest)
  }
  const held = log.holdCommits()
  await bench.task()
  await held.reached
  await bench.standby(1)
  await standbyAsked()
  steps.push('commit')
  held.letGo()
  await vi.waitFor(() => expect(steps).toContain('status 1'))
  expect(steps).toEqual(['telemetry 0', 'status 0', 'commit', 'status 1'])
})

it('restores what it is to own before its other copies, which wait until it is owned', async () => {
  const log = new MemoryLog(2)
  await filled(log, 1)
  await using bench = await Workbench.open(log)
  const steps: string[] = []
  const standbyAsked = yielding(bench, steps)
  Object.assign(bench.parts.clock, { sleep: untilTold })
  const read = Promise.withResolvers<void>()
  const follow = log.follow.bind(log)
  log.follow = async function* (of, ...rest) {
    if (of.index === 0) await read.promise
    steps.push(`status ${of.index}`)
    yield* follow(of, ...rest)
  }
  const heir = await bench.standby(0, { heir: true, held: true, whole: () => steps.push('whole 0') })
  await bench.standby(1, { heir: false, held: true, whole: () => steps.push('whole 1') })
  await standbyAsked()
  read.resolve()
  await vi.waitFor(() => expect(steps).toContain('whole 0'))
  // It is to be the owner now.
  await heir.stop()
  steps.push('end 0')
  await vi.waitFor(() => expect(steps).toContain('whole 1'))
  expect(steps.slice(0, 3)).toEqual(['status 0', 'whole 0', 'end 0'])
})

it('a standby that restores waits at its next batch for an owner that has begun meanwhile', async () => {
  const log = new MemoryLog(1)
  await filled(log, 1)
  await using bench = await Workbench.open(log, { changelogRecords: 10 })
  const restorePriority = new RestorePriority(untilTold)
  Object.assign(bench.parts, { restorePriority })
  const turn = vi.spyOn(restorePriority, 'turn')
  const begun = Promise.withResolvers<void>()
  const follow = log.follow.bind(log)
  log.follow = async function* (...of) {
    for await (const batch of follow(...of)) {
      if (batch.next > 10) await begun.promise
      yield batch
    }
  }
  const { role } = await bench.standby()
  const reached = () => role.store.checkpoint?.changelog ?? 0
  await vi.waitFor(() => expect(reached()).toBe(10))
  const asked = turn.mock.calls.length
  const owner = Promise.withResolvers<void>()
  const caughtUp = restorePriority.first(() => owner.promise)
  begun.resolve()
  await vi.waitFor(() => expect(turn.mock.calls.length > asked || reached() > 10).toBe(true))
  expect(reached()).toBe(10)
  owner.resolve()
  await caughtUp
  await bench.settled()
})
