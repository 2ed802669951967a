import { beforeEach, expect, it } from 'vitest'
import { Positions, planStart } from '../../../api/changes/resume.ts'
import { UnavailableError } from '../../../processor/contract/errors.ts'
import { Changelog } from './changelog.ts'
import { Client, FakeClock, settled } from './client.ts'
import { ANYONE, follow, streamsOver } from './stage.ts'

const HOUR = 3600_000

let log: Changelog
let clock: FakeClock
let streams: ReturnType<typeof streamsOver>

beforeEach(() => {
  log = new Changelog(2)
  clock = new FakeClock()
  streams = streamsOver(log, clock)
})

it('a stream goes on when somebody sets the clock back', async () => {
  const client = new Client(clock)
  await follow(streams, client)
  log.put('a', 1)
  await clock.pass(300)
  clock.set -= HOUR
  log.put('a', 2)
  log.put('b', 1)
  await clock.pass(300)
  expect(client.devices).toEqual(log.devices())
})

it('a quiet stream is told its position when somebody has set the clock back', async () => {
  const client = new Client(clock)
  await follow(streams, client, { subject: { deviceId: 'another' } })
  await settled()
  clock.set -= HOUR
  const before = client.lastEventId
  await clock.pass(30_000)
  expect(client.lastEventId).not.toBe(before)
})

it('a client that does not read is cut when somebody has set the clock back', async () => {
  const sink = await follow(streams, new Client(clock))
  log.put('a', 1)
  await clock.pass(300)
  sink.stalled = true
  log.put('a', 2)
  await clock.pass(300)
  clock.set -= HOUR
  await clock.pass(60_000)
  expect(sink.ended).toBe(true)
})

it('a snapshot gives up on a partition in time when somebody has set the clock back', async () => {
  const reader = {
    ...log.reader,
    listPartition: () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'nobody')),
  }
  streams = streamsOver(log, clock, { reader })
  const sink = await follow(streams, new Client(clock))
  await settled()
  clock.set -= HOUR
  await clock.pass(11_000)
  expect(sink.ended).toBe(true)
})

it('a stream ends with its token, as the clock has it, when somebody has set it ahead', async () => {
  const sink = await follow(streams, new Client(clock), { caller: { ...ANYONE, expiresAt: clock.now() + 2 * HOUR } })
  clock.set += HOUR
  await clock.pass(HOUR - 1)
  expect(sink.ended).toBe(false)
  await clock.pass(60_000)
  expect(sink.ended).toBe(true)
})

it('a stream lasts as long as its token when somebody has set the clock back', async () => {
  const sink = await follow(streams, new Client(clock), { caller: { ...ANYONE, expiresAt: clock.now() + HOUR } })
  clock.set -= HOUR
  await clock.pass(2 * HOUR - 1)
  expect(sink.ended).toBe(false)
  await clock.pass(1)
  expect(sink.ended).toBe(true)
})

it('a stream goes on from a position of a process whose clock is ahead, by up to half of the time deletions are kept', () => {
  const positions = new Positions('any', 1)
  const resumed = (aheadMs: number) => {
    const lastEventId = positions.encode({ offsets: [7], atSeconds: (100 * HOUR + aheadMs) / 1000 })
    const facts = { lastEventId, positions, ends: [7], maxBehind: undefined, deleteRetentionMs: 24 * HOUR }
    return 'at' in planStart({ ...facts, now: 100 * HOUR })
  }
  expect([5_000, 12 * HOUR, 12 * HOUR + 1000].map(resumed)).toEqual([true, true, false])
})
