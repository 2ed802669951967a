import { beforeEach, describe, expect, it, vi } from 'vitest'
import { StoreCorruptedError, UnavailableError } from '../../../processor/contract/errors.ts'
import { partitionOf } from '../../../processor/contract/partition.ts'
import { bufferOf, type Slice } from '../../../processor/contract/query.ts'
import { decodeStatus } from '../../../processor/contract/status.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { listed, readerContract } from '../../contract/reader.ts'
import { Fleet } from '../fleet.ts'
import { routed } from '../stage.ts'

readerContract('RoutedReader', async () => {
  const fleet = new Fleet(4, ['a', 'b'])
  return {
    reader: routed(fleet),
    partitions: fleet.partitions,
    put: async (deviceId, reported) => fleet.put(deviceId, reported),
    [Symbol.asyncDispose]: async () => undefined,
  }
})

const DEVICE = 'truck-17'
const PARTITION = partitionOf(DEVICE, 4)

describe('RoutedReader', () => {
  let fleet: Fleet
  beforeEach(() => {
    fleet = new Fleet(4, ['a', 'b', 'c'])
    fleet.put(DEVICE)
    fleet.assign(PARTITION, 'a', 'b')
  })

  it.each([
    ['is restoring', () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'being restored'))],
    ['has a corrupted store', () => Promise.reject(new StoreCorruptedError('bad block'))],
    ['does not answer', () => new Promise<never>(() => undefined)],
  ])('asks the standby while the owner %s', async (_, fault) => {
    fleet.member('a').fault = fault
    const { status, freshness } = await routed(fleet, { answerWithinMs: 20 }).get(DEVICE)
    expect(decodeStatus(bufferOf(status as Slice)).deviceId).toBe(DEVICE)
    expect(freshness.servedBy).toBe('standby')
  })

  it('gives a search more time, as much as it may wait for its turn in this process', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const [a, b] = [fleet.member('a'), fleet.member('b')]
      a.fault = () => new Promise<never>(() => undefined)
      const reader = routed(fleet, { answerWithinMs: 20, searchQueuedMs: 40 })
      const query = parseQuery('')
      const counted = reader.summarize({
        partition: PARTITION,
        query,
        within: undefined,
        by: [],
        metrics: [],
        from: undefined,
      })
      await vi.advanceTimersByTimeAsync(59)
      expect([a.asked, b.asked]).toEqual([1, 0])
      await vi.advanceTimersByTimeAsync(1)
      expect((await counted).freshness.servedBy).toBe('standby')
    } finally {
      vi.useRealTimers()
    }
  })

  it('has the copy that is furthest answer while the owner restores', async () => {
    const [a, b] = [fleet.member('a'), fleet.member('b')]
    a.restoring = true
    a.offset = 5
    const reader = routed(fleet)
    expect((await reader.get(DEVICE)).freshness).toMatchObject({ offset: 7, servedBy: 'standby' })
    expect((await reader.listPartition(PARTITION, undefined, 10)).freshness.offset).toBe(7)
    a.offset = 8
    expect((await reader.get(DEVICE)).freshness.offset).toBe(8)
    a.offset = 5
    b.fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'gone'))
    expect((await reader.get(DEVICE)).freshness.offset).toBe(5)
    a.restoring = false
    a.offset = 8
    const { asked } = b
    expect((await reader.get(DEVICE)).freshness).toMatchObject({ offset: 8, servedBy: 'owner' })
    expect(b.asked).toBe(asked)
  })

  it.each(['get', 'list'] as const)(
    'takes nothing back that a standby has shown, though the owner lacks it: %s',
    async (how) => {
      let now = 0
      const reader = routed(fleet, { now: () => now })
      const ask = async () =>
        (how === 'get' ? await reader.get(DEVICE) : await reader.listPartition(PARTITION, undefined, 10)).freshness
      const [a, b] = [fleet.member('a'), fleet.member('b')]
      a.fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'busy'))
      expect(await ask()).toMatchObject({ offset: 7, servedBy: 'standby' })
      a.fault = undefined
      a.offset = 5
      expect(await ask()).toMatchObject({ offset: 7, servedBy: 'standby' })
      b.fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'gone'))
      expect(await ask()).toMatchObject({ offset: 5, servedBy: 'standby' })
      b.fault = undefined
      a.offset = 7
      const { asked } = b
      expect(await ask()).toMatchObject({ offset: 7, servedBy: 'owner' })
      expect(b.asked).toBe(asked)
      a.offset = 5
      now += 60_000
      expect(await ask()).toMatchObject({ offset: 5, servedBy: 'owner' })
    },
  )

  it.each(['get', 'list'] as const)(
    'says standby of a copy that does not know yet that it owns no more: %s',
    async (how) => {
      const owners = await fleet.owners()
      const reader = routed(fleet, { owners: () => Promise.resolve(owners) })
      const ask = async () =>
        (how === 'get' ? await reader.get(DEVICE) : await reader.listPartition(PARTITION, undefined, 10)).freshness
      fleet.member('b').roles.set(PARTITION, 'owner')
      expect(await ask()).toMatchObject({ servedBy: 'owner' })
      const a = fleet.member('a')
      a.fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'busy'))
      expect(await ask()).toMatchObject({ servedBy: 'standby' })
      a.fault = undefined
      a.restoring = true
      a.offset = 5
      expect(await ask()).toMatchObject({ offset: 7, servedBy: 'standby' })
    },
  )

  it('asks the standby when the owner cannot be reached, and when there is no owner', async () => {
    const reader = routed(fleet, { connect: (owner) => (owner.instance === 'a' ? undefined : fleet.connect(owner)) })
    expect((await reader.get(DEVICE)).freshness.servedBy).toBe('standby')
    fleet.assign(PARTITION, undefined, 'c')
    expect((await reader.get(DEVICE)).freshness.servedBy).toBe('standby')
  })

  it('says how long to wait when no copy can answer', async () => {
    fleet.member('a').fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'restoring', 9))
    fleet.assign(PARTITION, 'a')
    const failure = await routed(fleet)
      .get(DEVICE)
      .catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(UnavailableError)
    expect(failure).toMatchObject({ code: 'PARTITION_UNAVAILABLE', retryAfterSeconds: 9 })
    expect((failure as Error).message).toBe(`no copy of partition ${PARTITION} can answer now: restoring`)
  })

  describe('when no other copy can answer', () => {
    it.each(['get', 'list'] as const)('waits for one that is late: %s', async (how) => {
      const a = fleet.member('a')
      const slow = Promise.withResolvers<void>()
      a.fault = () => slow.promise
      fleet.assign(PARTITION, 'a')
      const reader = routed(fleet, { answerWithinMs: 20, patienceMs: 60_000 })
      const answer = how === 'get' ? reader.get(DEVICE) : reader.listPartition(PARTITION, undefined, 10)
      // Until it is asked patiently.
      await vi.waitFor(() => expect(a.asked).toBeGreaterThan(1))
      slow.resolve()
      expect((await answer).freshness).toMatchObject({ servedBy: 'owner' })
    })

    it('does not wait until the owners are learnt anew', async () => {
      const a = fleet.member('a')
      const slow = Promise.withResolvers<void>()
      a.fault = () => slow.promise
      fleet.assign(PARTITION, 'a')
      let loads = 0
      const owners = () => (loads++ === 0 ? fleet.owners() : new Promise<never>(() => undefined))
      const answer = routed(fleet, { owners, answerWithinMs: 20, patienceMs: 60_000 }).get(DEVICE)
      await vi.waitFor(() => expect(a.asked).toBeGreaterThan(1))
      slow.resolve()
      expect((await answer).freshness).toMatchObject({ servedBy: 'owner' })
    })

    it('asks the next owner of what belonged to one that stands still', async () => {
      const a = fleet.member('a')
      a.fault = () => new Promise<never>(() => undefined)
      fleet.assign(PARTITION, 'a')
      const answer = routed(fleet, { answerWithinMs: 20, patienceMs: 60_000 }).get(DEVICE)
      await vi.waitFor(() => expect(a.asked).toBeGreaterThan(1))
      fleet.assign(PARTITION, 'c')
      expect((await answer).freshness).toMatchObject({ servedBy: 'owner' })
    })

    it('waits no longer than it may, and not at all for those that refuse', async () => {
      const a = fleet.member('a')
      a.fault = () => new Promise<never>(() => undefined)
      fleet.assign(PARTITION, 'a')
      await expect(routed(fleet, { answerWithinMs: 20, patienceMs: 50 }).get(DEVICE)).rejects.toThrow('within 50 ms')
      a.fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'restoring'))
      await expect(routed(fleet, { patienceMs: 60_000 }).get(DEVICE)).rejects.toThrow('restoring')
    })
  })

  it('does not hide a defect behind another copy', async () => {
    fleet.member('a').fault = () => Promise.reject(new TypeError('defect'))
    await expect(routed(fleet).get(DEVICE)).rejects.toThrow(TypeError)
    await expect(routed(fleet).getMany([DEVICE])).rejects.toThrow(TypeError)
    await expect(routed(fleet).partitions()).rejects.toThrow(TypeError)
  })

  it('puts an error in the place of each answer that cannot be had', async () => {
    const other = ['x1', 'x2', 'x3', 'x4', 'x5', 'x6'].find((id) => partitionOf(id, 4) !== PARTITION) as string
    fleet.put(other)
    fleet.assign(PARTITION, undefined)
    const answers = await routed(fleet).getMany([DEVICE, other, DEVICE])
    expect(answers[0]).toBeInstanceOf(UnavailableError)
    expect(answers[1]).toMatchObject({ freshness: { partition: partitionOf(other, 4) } })
    expect(answers[2]).toBeInstanceOf(UnavailableError)
  })

  it('refuses a list with a hole', async () => {
    fleet.assign(PARTITION, undefined)
    await expect(listed(routed(fleet), undefined, 10)).rejects.toThrow(UnavailableError)
  })

  it('lists on when a member gives fewer devices than it was asked for', async () => {
    const ids = Array.from({ length: 50 }, (_, i) => `d${i + 100}`)
    for (const id of ids) fleet.put(id)
    for (const member of fleet.members.values()) member.searchReads = 2
    const { items, more } = await listed(routed(fleet), 'd', 50)
    expect(items.map((item) => item.deviceId)).toEqual(ids)
    expect(more).toBe(true)
  })

  it('reads little more than a page from the partitions', async () => {
    for (let i = 0; i < 2000; i++) fleet.put(`d${i}`)
    await listed(routed(fleet), undefined, 100)
    const read = [...fleet.members.values()].reduce((sum, member) => sum + member.listed, 0)
    expect(read).toBeLessThan(200)
  })

  it('asks once per partition for the devices of one turn', async () => {
    const ids = Array.from({ length: 1100 }, (_, i) => `d${i}`)
    for (const id of ids) fleet.put(id)
    const reader = routed(fleet)
    await reader.get(DEVICE)
    const asked = () => [...fleet.members.values()].reduce((sum, member) => sum + member.asked, 0)
    const before = asked()
    const answers = await Promise.all(ids.map((id) => reader.get(id)))
    expect(answers.map(({ status }) => decodeStatus(bufferOf(status as Slice)).deviceId)).toEqual(ids)
    expect(asked() - before).toBe(4)
  })

  it('lets no device wait for the owner of another one', async () => {
    const other = Array.from({ length: 50 }, (_, i) => `y${i}`).find((id) => {
      return fleet.member('a').roles.get(partitionOf(id, 4)) === undefined
    }) as string
    fleet.put(other)
    const letGo = Promise.withResolvers<never>()
    fleet.member('a').fault = () => letGo.promise
    const reader = routed(fleet, { answerWithinMs: 60_000 })
    const slow = reader.get(DEVICE)
    expect((await reader.get(other)).freshness.partition).toBe(partitionOf(other, 4))
    letGo.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'gone'))
    expect((await slow).freshness.servedBy).toBe('standby')
  })

  it('gives the owner of a partition that rests the word again, though a standby is at the marker behind its commit', async () => {
    let now = 0
    const reader = routed(fleet, { now: () => now })
    fleet.member('b').offset = 8
    fleet.member('a').fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'a moment'))
    expect((await reader.get(DEVICE)).freshness.servedBy).toBe('standby')
    fleet.member('a').fault = undefined
    for (; now < 60_000; now += 1_000) expect((await reader.get(DEVICE)).freshness.servedBy).toBe('standby')
    expect((await reader.get(DEVICE)).freshness.servedBy).toBe('owner')
  })

  it('lets no owner take back the input that a standby showed, though it has read further in the changelog', async () => {
    const reader = routed(fleet)
    const [a, b] = [fleet.member('a'), fleet.member('b')]
    b.offset = 12
    a.fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'a moment'))
    expect((await reader.get(DEVICE)).freshness).toMatchObject({ servedBy: 'standby', offset: 12 })
    a.fault = undefined
    // The commit that led there was lost: what it had written was aborted, and is read past.
    Object.assign(a, { offset: 9, changelogOffset: 30 })
    Object.assign(b, { offset: 9, changelogOffset: 25 })
    expect((await reader.get(DEVICE)).freshness).toMatchObject({ servedBy: 'standby', offset: 9 })
    a.offset = 12
    expect((await reader.get(DEVICE)).freshness).toMatchObject({ servedBy: 'owner', offset: 12 })
  })

  it('tells of a partition without an owner, and of the members that answer', async () => {
    fleet.assign(PARTITION, undefined, 'b')
    fleet.member('c').fault = () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'gone'))
    const partitions = await routed(fleet).partitions()
    expect(partitions).toHaveLength(4)
    expect(partitions[PARTITION]).toMatchObject({ owner: undefined, standbys: [{ instance: 'b' }] })
  })
})
