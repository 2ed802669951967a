import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { ChangelogFollower } from '../../../api/changes/changelog-follower.ts'
import { Positions } from '../../../api/changes/resume.ts'
import { UnavailableError } from '../../../processor/contract/errors.ts'
import { Matcher } from '../../../processor/search/language/match.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Changelog } from './changelog.ts'
import { Client, FakeClock, settled } from './client.ts'
import { follow, streamsOver } from './stage.ts'

let log: Changelog
let clock: FakeClock

beforeEach(() => {
  log = new Changelog(1)
  clock = new FakeClock()
})

afterEach(() => void vi.restoreAllMocks())

const streams = (options: Parameters<typeof streamsOver>[2] = {}) => streamsOver(log, clock, options)

it('a query is asked once of each change for all its streams, and no more when the last of them has ended', async () => {
  const matcher = new Matcher(parseQuery('reported.x:>5'))
  const asked = vi.spyOn(matcher, 'matches')
  const process = streams()
  await follow(process, new Client(clock))
  const subject = { text: 'x:>5', matcher }
  const sinks = [
    await follow(process, new Client(clock), { subject }),
    await follow(process, new Client(clock), { subject }),
  ]
  await settled()
  const change = async () => {
    asked.mockClear()
    log.put('a', 9)
    await settled()
    return asked.mock.calls.length
  }
  expect(await change()).toBe(1)
  sinks[0]?.cut()
  expect(await change()).toBe(1)
  sinks[1]?.cut()
  expect(await change()).toBe(0)
})

it('no more streams than maxCatchUps read older changes from the log at a time', async () => {
  for (let i = 0; i < 20; i++) log.put(`device-${i}`, i)
  const feed = log.feed()
  const held = Promise.withResolvers<void>()
  let [reading, most] = [0, 0]
  const watched: typeof feed = {
    ...feed,
    async *follow(partition, from, signal) {
      // What all streams are told by is read from the end on.
      const isOlder = from < 10
      if (isOlder) most = Math.max(most, ++reading)
      try {
        if (isOlder) await held.promise
        yield* feed.follow(partition, from, signal)
      } finally {
        if (isOlder) reading--
      }
    },
  }
  const process = streams({ feed: watched, limits: { maxCatchUps: 2, recentRecords: 1 } })
  const positions = new Positions(JSON.stringify(['memory', '', null]), 1)
  const clients = Array.from({ length: 5 }, () => new Client(clock))
  for (const client of clients) {
    client.lastEventId = positions.encode({ offsets: [5], atSeconds: clock.now() / 1000 })
    await follow(process, client)
  }
  await settled()
  expect([reading, most]).toEqual([2, 2])
  held.resolve()
  await vi.waitFor(async () => {
    await clock.pass(1_000)
    for (const client of clients) expect(client.devices.size).toBe(15)
  })
  expect([reading, most]).toEqual([0, 2])
})

it('what is kept of recent changes is bounded by bytes, of all partitions together', async () => {
  log = new Changelog(2)
  log.padding = 1_000
  const opening = ChangelogFollower.open.bind(ChangelogFollower)
  const begun: ChangelogFollower[] = []
  vi.spyOn(ChangelogFollower, 'open').mockImplementation(async (options) => {
    const following = await opening(options)
    begun.push(following)
    return following
  })
  await follow(streams({ limits: { recentBytes: 20_000 } }), new Client(clock))
  for (let i = 0; i < 100; i++) log.put(`device-${i}`, i)
  await vi.waitFor(() => expect([0, 1].map((p) => begun[0]?.recent(p).next)).toEqual([log.end(0), log.end(1)]))
  for (const partition of [0, 1]) {
    const recent = begun[0]?.recent(partition)
    const kept = recent?.read(recent.start, 1_000_000)?.changes ?? []
    const bytes = kept.reduce((sum, change) => sum + change.bytes, 0)
    expect(bytes).toBeLessThanOrEqual(10_000)
    expect(bytes).toBeGreaterThan(5_000)
  }
})

it('a snapshot waits for a partition that nobody answers for, and so long', async () => {
  const reader = {
    ...log.reader,
    listPartition: () => Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'nobody is there')),
  }
  const client = new Client(clock)
  const sink = await follow(streams({ reader, limits: { snapshotPatienceMs: 3_000 } }), client)
  await clock.pass(2_900)
  expect(sink.ended).toBe(false)
  await clock.pass(1_000)
  expect(sink.ended).toBe(true)
  expect(client.events.at(-1)).toMatchObject({ name: 'end', data: '{"reason":"unavailable"}' })
})
