import { expect, it, vi } from 'vitest'
import { MemoryLog } from '../memory-log.ts'
import { said, Workbench } from '../workbench.ts'

/** A changelog that others went on with while the copy here was away, and a log that says nothing of its ends yet. */
async function away(log: MemoryLog, bench: Workbench, missed: number): Promise<Silence> {
  await using others = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 })])
  await others.task()
  const before = await bench.standby()
  await others.settled()
  await bench.settled()
  await before.stop()
  for (let i = 0; i < missed; i++) await log.append('telemetry', [said(`d-${i}`, { x: i })])
  await others.settled()
  return silenced(log)
}

/** Until it is over the log does not say where its partitions end. */
interface Silence extends Disposable {
  readonly say: () => void
}

function silenced(log: MemoryLog): Silence {
  const told = Promise.withResolvers<void>()
  const bounds = log.bounds.bind(log)
  log.bounds = (of) => told.promise.then(() => bounds(of))
  return { say: told.resolve, [Symbol.dispose]: told.resolve }
}

const REFUSED = { code: 'PARTITION_UNAVAILABLE' }

it('a standby that is back answers nothing before it knows how far behind it is', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  using silence = await away(log, bench, 50)
  await bench.reopen()
  await bench.standby()
  for (const asked of [bench.reader.getMany(0, ['d-7']), bench.reader.list(0, undefined, 10)]) {
    await expect(asked).rejects.toMatchObject(REFUSED)
  }
  await expect(bench.reader.getPast({ partition: 0, offset: 7 }, 'd-7', 1_000)).rejects.toMatchObject(REFUSED)
  const [copy] = await bench.reader.copies()
  expect(copy).toMatchObject({ state: 'restoring', readable: false, changelogOffset: 1 })
  expect(copy).toMatchObject({ lag: undefined, restore: undefined })
  silence.say()
  await bench.settled()
  const [answer] = await bench.reader.getMany(0, ['d-7'])
  expect(answer).toMatchObject({ status: expect.anything(), freshness: { lag: 0, servedBy: 'standby' } })
})

it('a standby that waits for its turn says how far behind it is', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  using silence = await away(log, bench, 50)
  await bench.reopen()
  const turn = Promise.withResolvers<void>()
  vi.spyOn(bench.parts.restorePriority, 'turn').mockReturnValue(turn.promise)
  await bench.standby()
  silence.say()
  const known = async () => expect((await bench.reader.copies())[0]?.lag).toBe(50)
  await vi.waitFor(known)
  const [answer] = await bench.reader.getMany(0, ['d-7'])
  expect(answer).toMatchObject({ status: undefined, freshness: { changelog: 1, lag: 50 } })
  expect((await bench.reader.copies())[0]).toMatchObject({ readable: true, restore: { remaining: 50 } })
  turn.resolve()
})

it('an owner that is back says at once what waits', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 })])
  const task = await bench.task()
  await bench.settled()
  await task.stop()
  for (let i = 0; i < 50; i++) await log.append('telemetry', [said(`d-${i}`, { x: i })])
  await bench.reopen()
  using _ = silenced(log)
  await bench.task()
  const [answer] = await bench.reader.getMany(0, ['d-7'])
  expect(answer?.freshness).toMatchObject({ offset: 1, lag: 50 })
  expect((await bench.reader.copies())[0]?.lag).toBe(50)
})

it.each([
  ['owner', 'standby'],
  ['standby', 'standby'],
  ['standby', 'owner'],
] as const)('no read is refused while a role follows another: %s, then %s', async (first, second) => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await using others = await Workbench.open(log)
  const run = (role: 'owner' | 'standby') => (role === 'owner' ? bench.task() : bench.standby())
  await log.append('telemetry', [said('a', { x: 1 })])
  if (first === 'standby') await others.task()
  const before = await run(first)
  await bench.settled()
  using _ = silenced(log)
  await before.stop()
  await run(second)
  const [answer] = await bench.reader.getMany(0, ['a'])
  expect(answer).toMatchObject({ status: expect.anything(), freshness: { lag: 0 } })
})

it('what was known of the end is not good for a role that begins much later', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  using _ = await away(log, bench, 50)
  bench.now += 5_001
  await bench.standby()
  await expect(bench.reader.getMany(0, ['d-7'])).rejects.toMatchObject(REFUSED)
})

it('an owner whose store refuses what was committed is, as a standby, so far behind', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await log.append('telemetry', [said('a', { x: 1 })])
  const task = await bench.task()
  await bench.settled()
  const full = vi.spyOn(task.role.store, 'commit').mockRejectedValue(new Error('no space'))
  await log.append('telemetry', [said('a', { x: 2 }), said('b', { x: 1 })])
  await vi.waitFor(() => expect(full).toHaveBeenCalled())
  using _ = silenced(log)
  await task.stop()
  await bench.standby()
  const [answer] = await bench.reader.getMany(0, ['a'])
  expect(answer?.freshness).toMatchObject({ changelog: 1, lag: 2 })
  full.mockRestore()
})
