import { expect, it, vi } from 'vitest'
import { writeRecord } from '../../../processor/contract/write.ts'
import { PositionWaiters } from '../../../processor/partition/waiters.ts'
import { MemoryLog } from '../memory-log.ts'
import { RECEIVED, said, statusOf, Workbench } from '../workbench.ts'

const site = (deviceId: string, name: string, ifMatch?: string[]) =>
  writeRecord(deviceId, { kind: 'attributes', operation: 'replace', attributes: { site: name }, ifMatch }, RECEIVED)
const PATIENCE_MS = 20_000

it('holds a question until the owner has applied the record, and tells what came of it', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await bench.task()
  await log.append('telemetry', [said('a', { x: 1 })])
  await bench.settled()
  const next = { partition: 0, offset: 1 }
  const asked = bench.reader.getPast(next, 'a', PATIENCE_MS)
  const later = bench.reader.getPast({ partition: 0, offset: 2 }, 'a', PATIENCE_MS)
  expect(await log.write(site('a', 'k1', ['1']))).toEqual(next)
  const answer = await asked
  expect(answer).toMatchObject({ outcome: 'applied', freshness: { offset: 2, servedBy: 'owner' } })
  expect(statusOf(answer).attributes).toEqual({ site: 'k1' })
  await log.write(site('a', 'k2', ['1']))
  expect(await later).toMatchObject({ outcome: 'stale' })
  expect(await bench.reader.getPast(next, 'a', 0)).toMatchObject({ outcome: 'applied', freshness: { offset: 3 } })
  expect((await bench.reader.getPast({ partition: 0, offset: 0 }, 'a', 0)).outcome).toBeUndefined()
})

it('says that the record is not applied, after the time, and at once when there is none', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  await bench.task()
  await bench.settled()
  for (const within of [0, 1]) {
    await expect(bench.reader.getPast({ partition: 0, offset: 0 }, 'a', within)).rejects.toMatchObject({
      code: 'POSITION_NOT_REACHED',
      message: 'partition 0 has reached 0, and not applied 0-0 yet',
    })
  }
})

it('lets go of those who wait when the partition is given up', async () => {
  await using bench = await Workbench.open(new MemoryLog())
  const task = await bench.task()
  await bench.settled()
  const asked = bench.reader.getPast({ partition: 0, offset: 0 }, 'a', PATIENCE_MS)
  task.role.copy.waiters.release()
  await expect(asked).rejects.toMatchObject({ code: 'POSITION_NOT_REACHED' })
})

it('learns from the changelog what came of writes, as a standby and as the next owner', async () => {
  const log = new MemoryLog()
  await using bench = await Workbench.open(log)
  const task = await bench.task()
  await log.append('telemetry', [said('a', { x: 1 }), site('a', 'k1', ['7']), site('nobody', 'k1')])
  await bench.settled()
  await task.stop()
  await using other = await Workbench.open(log)
  const standby = await other.standby()
  await other.settled()
  const outcomes = async () => {
    const answers = [1, 2].map((offset) => other.reader.getPast({ partition: 0, offset }, 'a', 0))
    return (await Promise.all(answers)).map(({ outcome, freshness }) => [outcome, freshness.servedBy])
  }
  expect(await outcomes()).toEqual([
    ['stale', 'standby'],
    ['unknown-device', 'standby'],
  ])
  await expect(other.reader.getPast({ partition: 0, offset: 3 }, 'a', 0)).rejects.toMatchObject({
    code: 'POSITION_NOT_REACHED',
  })
  await standby.stop()
  await other.task()
  await other.settled()
  expect(await outcomes()).toEqual([
    ['stale', 'owner'],
    ['unknown-device', 'owner'],
  ])
})

it('refuses to hold more than its bound', async () => {
  const waiters = new PositionWaiters()
  const held = Array.from({ length: 1024 }, (_, i) => waiters.applied(i, PATIENCE_MS))
  await expect(waiters.applied(9, PATIENCE_MS)).rejects.toMatchObject({ code: 'PARTITION_UNAVAILABLE' })
  waiters.reached(1000)
  await vi.waitFor(async () => expect(await held[999]).toBe(true))
  waiters.release()
  expect(new Set(await Promise.all(held.slice(1000)))).toEqual(new Set([false]))
  expect(await waiters.applied(9, 0)).toBe(false)
})
