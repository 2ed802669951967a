import { beforeEach, expect, it } from 'vitest'
import type { Subject } from '../../../api/changes/changelog-follower.ts'
import type { SnapshotReader } from '../../../api/changes/snapshot.ts'
import type { ChangeStreams } from '../../../api/changes/streams.ts'
import { Changelog } from './changelog.ts'
import { Client, FakeClock, settled } from './client.ts'
import { EVERYTHING, follow, streamsOver } from './stage.ts'

/** Reads after which the marker is written all the same: a stream that begins again and again is to end, too. */
const MAX_READS = 40

let log: Changelog
let clock: FakeClock
let client: Client
/** What an owner has committed its answers hold; the changelog ends before it for as long as this is set. */
let stable: readonly number[] | undefined
let reads: number
const gate = { closed: false }

beforeEach(() => {
  log = new Changelog(2)
  clock = new FakeClock()
  client = new Client(clock)
  reads = 0
  mark()
})

/** Another process; `recentRecords`: it keeps so many of a partition. */
function streams(recentRecords = 1_000): ChangeStreams {
  const feed = log.feed(gate)
  const bounds: typeof feed.bounds = async (partition) => {
    const { start, end } = await feed.bounds(partition)
    return { start, end: stable?.[partition] ?? end }
  }
  const reader: SnapshotReader = {
    get: (...asked) => read(log.reader.get(...asked)),
    listPartition: (...asked) => read(log.reader.listPartition(...asked)),
  }
  return streamsOver(log, clock, { feed: { ...feed, bounds }, reader, limits: { recentRecords } })
}

function read<T>(answer: T): T {
  if (++reads > MAX_READS) mark()
  return answer
}

function commit(deviceId: string, x: number): void {
  stable = [log.end(0), log.end(1)]
  gate.closed = true
  log.put(deviceId, x)
}

function mark(): void {
  stable = undefined
  gate.closed = false
  log.wake()
}

it.each<[string, Subject]>([
  ['all devices', EVERYTHING],
  ['a device', { deviceId: 'd-3' }],
])('a stream of %s begins once before a marker is written, and goes on elsewhere', async (_, subject) => {
  for (let i = 0; i < 20; i++) log.put(`d-${i}`, i)
  commit('d-3', 100)
  const sink = await follow(streams(), client, { subject })
  await clock.pass(300)
  sink.cut()
  const again = await follow(streams(), client, { subject })
  await clock.pass(300)
  expect(client.devices.get('d-3')).toBe(100)
  expect(client.named('reset')).toHaveLength(1)
  mark()
  log.put('d-3', 101)
  await clock.pass(300)
  again.cut()
  expect(client.named('reset')).toHaveLength(1)
  expect(client.devices.get('d-3')).toBe(101)
})

it('a stream that reads its device as it is, before the marker is written, goes on elsewhere', async () => {
  const subject = { deviceId: 'd-3' }
  log.put('d-3', 3)
  const sink = await follow(streams(), client, { subject })
  await clock.pass(300)
  sink.cut()
  for (let i = 0; i < 50; i++) log.put(`d-${i}`, i)
  const process = streams(1)
  const other = await follow(process, new Client(clock))
  await clock.pass(300)
  commit('d-3', 100)
  const late = await follow(process, client, { subject })
  await clock.pass(300)
  expect(client.devices.get('d-3')).toBe(100)
  late.cut()
  await follow(streams(1), client, { subject })
  await clock.pass(300)
  expect(client.named('reset')).toHaveLength(1)
  mark()
  log.put('d-3', 101)
  await settled()
  await clock.pass(300)
  expect(client.named('reset')).toHaveLength(1)
  expect(client.devices.get('d-3')).toBe(101)
  other.cut()
})
