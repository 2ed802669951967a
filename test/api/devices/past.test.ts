import { beforeEach, describe, expect, it, vi } from 'vitest'
import { UnavailableError } from '../../../processor/contract/errors.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { Fleet } from '../fleet.ts'
import { routed } from '../stage.ts'

const DEVICE = 'truck-17'
const PARTITION = partitionOf(DEVICE, 4)
/** Of a write: copies at 8 include it. */
const POSITION = { partition: PARTITION, offset: 7 }

describe('an answer that includes a write', () => {
  let fleet: Fleet
  beforeEach(() => {
    fleet = new Fleet(4, ['a', 'b', 'c'])
    fleet.put(DEVICE)
    fleet.assign(PARTITION, 'a', 'b')
  })

  it('has the owner hold a question, and goes on asking until the time is up', async () => {
    const a = fleet.member('a')
    a.outcomes.set(7, 'applied')
    const reader = routed(fleet, { answerWithinMs: 100 })
    await expect(reader.getPast(POSITION, DEVICE, 0)).rejects.toMatchObject({ code: 'POSITION_NOT_REACHED' })
    expect(a.held).toEqual([0])
    const asked = reader.getPast(POSITION, DEVICE, 10_000)
    await vi.waitFor(() => expect(a.held.length).toBeGreaterThan(1))
    expect(a.held[1]).toBe(60)
    a.offset = 8
    expect(await asked).toMatchObject({ outcome: 'applied', freshness: { offset: 8, servedBy: 'owner' } })
    expect(fleet.ownersLoaded).toBe(1)
  })

  it('asks a standby that is far enough, and the next owner, while the owner is gone', async () => {
    const reader = routed(fleet)
    fleet.member('a').fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'gone'))
    fleet.member('b').offset = 8
    expect((await reader.getPast(POSITION, DEVICE, 0)).freshness.servedBy).toBe('standby')
    expect(fleet.member('b').held).toEqual([0])
    fleet.member('b').offset = 7
    await expect(reader.getPast(POSITION, DEVICE, 0)).rejects.toThrow('gone')
    const asked = reader.getPast(POSITION, DEVICE, 10_000)
    fleet.assign(PARTITION, 'c', 'b')
    fleet.member('c').offset = 9
    expect((await asked).freshness).toMatchObject({ offset: 9, servedBy: 'owner' })
  })

  it('of a standby is taken back by no later one, though the owner lacks it', async () => {
    const reader = routed(fleet)
    const [a, b] = [fleet.member('a'), fleet.member('b')]
    b.offset = 9
    expect((await reader.getPast(POSITION, DEVICE, 0)).freshness).toMatchObject({ offset: 9, servedBy: 'standby' })
    expect((await reader.get(DEVICE)).freshness).toMatchObject({ offset: 9, servedBy: 'standby' })
    a.offset = 8
    a.outcomes.set(7, 'applied')
    const again = await reader.getPast(POSITION, DEVICE, 0)
    expect(again).toMatchObject({ outcome: 'applied', freshness: { offset: 9, servedBy: 'standby' } })
    a.offset = 9
    expect((await reader.getPast(POSITION, DEVICE, 0)).freshness).toMatchObject({ offset: 9, servedBy: 'owner' })
  })

  it('of a standby has the owners learnt anew, and is of a standby whatever that takes itself for', async () => {
    let now = 0
    const owners = await fleet.owners()
    const load = vi.fn(async () => owners)
    const reader = routed(fleet, { owners: load, ownersMinAgeMs: 100, now: () => now })
    fleet.assign(PARTITION, 'b')
    fleet.member('b').offset = 8
    await reader.get(DEVICE)
    now += 100
    load.mockClear()
    expect((await reader.getPast(POSITION, DEVICE, 0)).freshness).toMatchObject({ offset: 8, servedBy: 'standby' })
    expect(load).toHaveBeenCalledTimes(1)
  })
})
