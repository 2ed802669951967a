import { beforeEach, describe, expect, it, vi } from 'vitest'
import { UnavailableError } from '../../../processor/contract/errors.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import type { OwnerMap } from '../../../processor/contract/query.ts'
import { Fleet } from '../fleet.ts'
import { routed } from '../stage.ts'

const DEVICE = 'truck-17'
const PARTITION = partitionOf(DEVICE, 4)

describe('RoutedReader', () => {
  let fleet: Fleet
  beforeEach(() => {
    fleet = new Fleet(4, ['a', 'b', 'c'])
    fleet.put(DEVICE)
    fleet.assign(PARTITION, 'a', 'b')
  })

  it('follows a partition to its new owner', async () => {
    const reader = routed(fleet)
    await reader.get(DEVICE)
    fleet.assign(PARTITION, 'c')
    expect((await reader.get(DEVICE)).freshness.servedBy).toBe('owner')
    expect(fleet.ownersLoaded).toBe(2)
    const asked = fleet.member('a').asked
    await reader.get(DEVICE)
    expect(fleet.member('a').asked).toBe(asked)
  })

  it('loads the owners once for all that fail, and not again before their time', async () => {
    let nowMs = 1_000_000
    const reader = routed(fleet, { ownersMinAgeMs: 60_000, now: () => nowMs })
    await reader.get(DEVICE)
    fleet.member('a').fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'restoring'))
    await Promise.all(Array.from({ length: 50 }, () => reader.getMany([DEVICE])))
    expect(fleet.ownersLoaded).toBe(1)
    nowMs += 60_000
    await Promise.all(Array.from({ length: 50 }, () => reader.getMany([DEVICE])))
    expect(fleet.ownersLoaded).toBe(2)
  })

  it('renews old owners beside a question, and after an answer of a standby', async () => {
    let nowMs = 1_000_000
    const reader = routed(fleet, { ownersMaxAgeMs: 5_000, now: () => nowMs })
    await reader.get(DEVICE)
    nowMs += 5_001
    await reader.get(DEVICE)
    await vi.waitFor(() => expect(fleet.ownersLoaded).toBe(2))
    fleet.assign(PARTITION, 'c', 'a')
    expect((await reader.get(DEVICE)).freshness.servedBy).toBe('standby')
    await vi.waitFor(async () => expect((await reader.get(DEVICE)).freshness.servedBy).toBe('owner'))
  })

  it('keeps the owners it knows when they cannot be learnt anew; knows none before it has learnt them', async () => {
    let broken = true
    const owners = async (): Promise<OwnerMap> => {
      if (broken) throw new Error('no broker')
      return fleet.owners()
    }
    const reader = routed(fleet, { owners })
    await expect(reader.get(DEVICE)).rejects.toMatchObject({ code: 'PARTITION_UNAVAILABLE' })
    await expect(reader.getMany([DEVICE])).resolves.toEqual([expect.any(UnavailableError)])
    broken = false
    await reader.get(DEVICE)
    broken = true
    fleet.member('a').fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'restoring'))
    expect((await reader.get(DEVICE)).freshness.servedBy).toBe('standby')
  })

  it('may answer while any copy is readable or late, by the owners it knows', async () => {
    const { owners } = fleet
    let away = false
    const load = async (): Promise<OwnerMap> => {
      if (away) throw new Error('Kafka is away')
      return owners()
    }
    const reader = routed(fleet, { owners: load, answerWithinMs: 20, ownersMinAgeMs: 0 })
    const members = [...fleet.members.values()]
    expect(await reader.mayAnswer()).toBe(true)
    away = true
    expect(await reader.mayAnswer()).toBe(true)
    for (const member of members) member.readable = false
    expect(await reader.mayAnswer()).toBe(false)
    fleet.member('b').readable = true
    expect(await reader.mayAnswer()).toBe(true)
    for (const member of members) member.fault = () => Promise.reject(new UnavailableError('NOT_OWNER', 'gone'))
    expect(await reader.mayAnswer()).toBe(false)
    fleet.member('b').fault = () => new Promise<never>(() => undefined)
    expect(await reader.mayAnswer()).toBe(true)
  })
})
