import { expect, it, vi } from 'vitest'
import type { StateStore } from '../../processor/store/store.ts'
import { MemoryLog } from './memory-log.ts'
import { RECEIVED, said, Workbench } from './workbench.ts'

const fleet = (count: number, x: number) => Array.from({ length: count }, (_, i) => said(`d${i}`, { x }))

interface Sample {
  readonly value: number
  readonly metricName?: string
  readonly labels: Record<string, string | number>
}

async function samples(bench: Workbench, name: string): Promise<readonly Sample[]> {
  return ((await bench.registry.getSingleMetric(name)?.get())?.values ?? []) as readonly Sample[]
}

/** Copies by role and state, where there are any. */
async function held(bench: Workbench): Promise<Record<string, number>> {
  const values = (await samples(bench, 'tidemark_partitions')).filter(({ value }) => value > 0)
  return Object.fromEntries(values.map(({ labels, value }) => [`${labels.role} ${labels.state}`, value]))
}

/** The store, each of whose commits waits until it is let go. */
function slowed(store: StateStore): { readonly store: StateStore; readonly next: () => void } {
  const waiting: (() => void)[] = []
  const commit = store.commit.bind(store)
  store.commit = async (...write) => {
    await new Promise<void>((resolve) => waiting.push(resolve))
    return commit(...write)
  }
  return { store, next: () => waiting.shift()?.() }
}

async function changelog(log: MemoryLog, devices: number): Promise<void> {
  await using bench = await Workbench.open(log)
  await log.append('telemetry', fleet(devices, 1))
  await bench.task()
  await bench.settled()
}

it('a restore tells what remains, how fast it goes, and when it will be done', async () => {
  const log = new MemoryLog()
  await changelog(log, 100)
  await using bench = await Workbench.open(log, { changelogRecords: 20 })
  const { store, next } = slowed(await bench.store())
  const running = await bench.task(log.claim(), store)
  const restore = async () => (await bench.reader.copies())[0]?.restore
  await vi.waitFor(async () => expect((await restore())?.remaining).toBe(100))
  expect(await restore()).toEqual({ remaining: 100, recordsPerSecond: 0, etaSeconds: undefined })
  expect(await held(bench)).toEqual({ 'owner restoring': 1 })
  bench.now += 2_000
  next()
  await vi.waitFor(async () => expect((await restore())?.remaining).toBe(80))
  expect(await restore()).toEqual({ remaining: 80, recordsPerSecond: 10, etaSeconds: 8 })
  expect(await samples(bench, 'tidemark_restore_remaining_records')).toMatchObject([
    { labels: { processor: 'one', partition: 0, role: 'owner' }, value: 80 },
  ])
  const pump = setInterval(next, 1)
  await bench.settled()
  expect(await restore()).toBeUndefined()
  expect(await held(bench)).toEqual({ 'owner running': 1 })
  expect(await samples(bench, 'tidemark_restore_remaining_records')).toMatchObject([{ value: 0 }])
  expect(await samples(bench, 'tidemark_restored_records_total')).toMatchObject([{ value: 100 }])
  const [sum] = (await samples(bench, 'tidemark_restore_duration_seconds')).filter(({ metricName }) =>
    metricName?.endsWith('_sum'),
  )
  expect(sum).toMatchObject({ labels: { processor: 'one', role: 'owner' }, value: 2 })
  await running.stop()
  clearInterval(pump)
  expect(await held(bench)).toEqual({})
  expect(await samples(bench, 'tidemark_restore_remaining_records')).toEqual([])
})

it('an owner that restores tells what waits after the committed input, and nothing while the end is not known', async () => {
  const log = new MemoryLog()
  await changelog(log, 100)
  await log.append('telemetry', fleet(3, 2))
  const look = Promise.withResolvers<void>()
  const bounds = log.bounds.bind(log)
  log.bounds = async (of) => {
    if (of.topic === 'telemetry') await look.promise
    return bounds(of)
  }
  await using bench = await Workbench.open(log, { changelogRecords: 20 })
  const { store, next } = slowed(await bench.store())
  await bench.task({ ...log.claim(), inputEnd: undefined }, store)
  const copy = async () => (await bench.reader.copies())[0]
  await vi.waitFor(async () => expect((await copy())?.restore?.remaining).toBe(100))
  expect(await copy()).toMatchObject({ state: 'restoring', offset: 0, lag: undefined })
  expect(await samples(bench, 'tidemark_consumer_lag_records')).toEqual([])
  look.resolve()
  await vi.waitFor(async () => expect((await copy())?.lag).toBe(3))
  expect(await samples(bench, 'tidemark_consumer_lag_records')).toMatchObject([{ value: 3 }])
  next()
  await vi.waitFor(async () => expect((await copy())?.restore?.remaining).toBe(80))
  expect(await copy()).toMatchObject({ state: 'restoring', offset: 0, lag: 3 })
  expect(await samples(bench, 'tidemark_consumer_lag_records')).toMatchObject([{ value: 3 }])
  const pump = setInterval(next, 1)
  await bench.settled()
  clearInterval(pump)
  expect(await copy()).toMatchObject({ state: 'running', offset: 103, lag: 0 })
})

it.each(['owner', 'standby'] as const)(
  'how many devices a copy holds is not told before it is whole: %s',
  async (role) => {
    const log = new MemoryLog()
    await using first = await Workbench.open(log)
    const before = await first.task()
    for (const x of [1, 2]) {
      await log.append('telemetry', fleet(100, x))
      await first.settled()
    }
    await before.stop()
    const rest = Promise.withResolvers<void>()
    const follow = log.follow.bind(log)
    log.follow = async function* (of, ...more) {
      for await (const batch of follow(of, ...more)) {
        if (of.topic === 'status' && batch.next > 100) await rest.promise
        yield batch
      }
    }
    await using bench = await Workbench.open(log, { changelogRecords: 100 })
    const running = role === 'owner' ? await bench.task() : await bench.standby()
    const copy = async () => (await bench.reader.copies())[0]
    await vi.waitFor(async () => expect((await copy())?.restore?.remaining).toBe(100))
    await running.role.refreshLag()
    expect((await copy())?.devices).toBeUndefined()
    expect(await samples(bench, 'tidemark_devices')).toEqual([])
    rest.resolve()
    await bench.settled()
    expect((await copy())?.devices).toBe(100)
    expect(await samples(bench, 'tidemark_devices')).toMatchObject([{ labels: { role }, value: 100 }])
  },
)

it('a copy whose member may be out of the group counts as doubtful, and not beside who has its partition by now', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await using other = await Workbench.open(log)
  const claim = Object.assign(log.claim(), { held: true })
  const copying = { heir: false, held: true, whole: () => {} }
  await bench.task(claim)
  await other.standby(0, copying)
  await bench.settled()
  await other.settled()
  expect(await held(bench)).toEqual({ 'owner running': 1 })
  expect(await held(other)).toEqual({ 'standby running': 1 })
  claim.held = false
  copying.held = false
  expect(await held(bench)).toEqual({ 'owner doubtful': 1 })
  expect(await held(other)).toEqual({ 'standby doubtful': 1 })
  claim.held = true
  expect(await held(bench)).toEqual({ 'owner running': 1 })
})

it('latency from end to end is that of the first record of a batch, one sample a batch', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 }), said('b', { x: 1 }, RECEIVED + 900)])
  bench.now = RECEIVED + 1_500
  await bench.task()
  await bench.settled()
  const all = async () => samples(bench, 'tidemark_end_to_end_latency_seconds')
  await vi.waitFor(async () => expect((await all()).find((s) => s.metricName?.endsWith('_count'))?.value).toBe(1))
  expect((await all()).find((s) => s.metricName?.endsWith('_sum'))?.value).toBe(1.5)
  // Of a record from the future: ingest's clock is ahead of this one.
  await log.append('telemetry', [said('a', { x: 2 }, RECEIVED + 60_000)])
  await vi.waitFor(async () => expect((await all()).find((s) => s.metricName?.endsWith('_count'))?.value).toBe(2))
  expect((await all()).find((s) => s.metricName?.endsWith('_sum'))?.value).toBe(1.5)
})

it('an owner that has been told to end answers as a standby', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const { store, next } = slowed(await bench.store())
  const pump = setInterval(next, 1)
  const task = await bench.task(log.claim(), store)
  await log.append('telemetry', fleet(10, 1))
  await bench.settled()
  clearInterval(pump)
  const servedBy = async () => (await bench.reader.getMany(0, ['none']))[0]?.freshness.servedBy
  await log.append('telemetry', fleet(10, 2))
  await vi.waitFor(() => expect(log.commits).toBe(2))
  expect(await servedBy()).toBe('owner')
  const stopped = task.stop()
  expect(await servedBy()).toBe('standby')
  const again = setInterval(next, 1)
  await stopped
  clearInterval(again)
})

it('a partition that is stuck shows its growing lag', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const { store, next } = slowed(await bench.store())
  const pump = setInterval(next, 1)
  const task = await bench.task(log.claim(), store)
  const { role } = task
  await log.append('telemetry', fleet(10, 1))
  await bench.settled()
  clearInterval(pump)
  await log.append('telemetry', fleet(10, 2))
  await vi.waitFor(() => expect(log.commits).toBe(2))
  await log.append('telemetry', fleet(10, 3))
  expect(role.lag).toBe(10)
  await role.refreshLag()
  expect(role.lag).toBe(20)
  expect((await bench.reader.copies())[0]?.lag).toBe(20)
  expect(await samples(bench, 'tidemark_consumer_lag_records')).toMatchObject([
    { labels: { processor: 'one', partition: 0 }, value: 20 },
  ])
  const again = setInterval(next, 1)
  await task.stop()
  clearInterval(again)
  await role.refreshLag()
  expect(await samples(bench, 'tidemark_consumer_lag_records')).toEqual([])
})

it('a standby that is stuck shows its lag, and what it has is not counted as to be restored', async () => {
  const log = new MemoryLog()
  await using owner = await Workbench.open(log)
  await using other = await Workbench.open(log)
  await owner.task()
  const standby = await other.standby()
  await log.append('telemetry', fleet(10, 1))
  await owner.settled()
  await other.settled()
  const { next } = slowed(standby.role.store)
  await log.append('telemetry', fleet(10, 2))
  await owner.settled()
  await log.append('telemetry', fleet(10, 3))
  await owner.settled()
  await standby.role.refreshLag()
  expect(await samples(other, 'tidemark_standby_lag_records')).toMatchObject([{ value: 20 }])
  expect(await samples(other, 'tidemark_restore_remaining_records')).toMatchObject([
    { labels: { processor: 'one', partition: 0, role: 'standby' }, value: 0 },
  ])
  expect((await other.reader.copies())[0]).toMatchObject({ role: 'standby', state: 'running', lag: 20 })
  expect(await held(other)).toEqual({ 'standby running': 1 })
  const pump = setInterval(next, 1)
  await other.settled()
  await standby.stop()
  clearInterval(pump)
})
