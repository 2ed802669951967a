import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ChangelogFollower } from '../../../api/changes/changelog-follower.ts'
import type { ChangesLimits } from '../../../api/limits.ts'
import { Matcher } from '../../../processor/search/language/match.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Changelog } from './changelog.ts'
import { Client, FakeClock, type FakeSink, settled } from './client.ts'
import { follow, streamsOver } from './stage.ts'

const DEVICES = 40
const STATUS_BYTES = 10_000

let log: Changelog
let clock: FakeClock
/** Of the streams that were opened last. */
let following: ChangelogFollower

beforeEach(() => {
  log = new Changelog(1)
  log.padding = STATUS_BYTES
  clock = new FakeClock()
  const opening = ChangelogFollower.open.bind(ChangelogFollower)
  vi.spyOn(ChangelogFollower, 'open').mockImplementation(async (options) => (following = await opening(options)))
})

afterEach(() => void vi.restoreAllMocks())

const streams = (limits: Partial<ChangesLimits> = {}) => streamsOver(log, clock, { limits })

function fill(reports: (i: number) => number | undefined = (i) => i): void {
  for (let i = 0; i < DEVICES; i++) log.put(`device-${i}`, reports(i))
}

describe('a snapshot', () => {
  beforeEach(() => fill())

  it('is written in pieces, each when the client has taken those before', async () => {
    const client = new Client(clock)
    const sink = await follow(streams({ writeBytes: 25_000 }), client, { stalled: true })
    for (let took = 0; client.named('snapshot-end').length === 0; took++) {
      await settled()
      // A piece, and what is a status too much for it.
      expect(sink.waiting).toBeLessThan(25_000 + 2 * STATUS_BYTES)
      expect(took).toBeLessThan(2 * DEVICES)
      sink.read()
    }
    expect(client.devices.size).toBe(DEVICES)
    expect(following.waitingBytes).toBe(0)
  })

  it('counts among what waits, and takes that back when its stream ends', async () => {
    const process = streams({ maxWaitingBytesInAll: 2.5 * DEVICES * STATUS_BYTES })
    const clients = Array.from({ length: 3 }, () => new Client(clock))
    const sinks: FakeSink[] = []
    for (const client of clients) {
      sinks.push(await follow(process, client, { stalled: true }))
      await settled()
    }
    expect(sinks.map(({ ended }) => ended)).toEqual([false, false, true])
    expect(following.waitingBytes).toBeGreaterThan(DEVICES * STATUS_BYTES)
    sinks[2]?.resume()
    expect(clients[2]?.events.at(-1)?.data).toBe('{"reason":"overloaded"}')
    sinks[0]?.cut()
    await settled()
    expect(following.waitingBytes).toBeLessThan(1.1 * DEVICES * STATUS_BYTES)
    sinks[1]?.resume()
    await settled()
    expect(clients[1]?.devices.size).toBe(DEVICES)
    expect(following.waitingBytes).toBe(0)
  })

  it('of a client that does not read is cut, and one of a client that reads slowly is not', async () => {
    const process = streams({ writeBytes: 1 })
    const client = new Client(clock)
    const slow = await follow(process, client, { stalled: true })
    const stuck = new Client(clock)
    const sink = await follow(process, stuck, { stalled: true })
    for (let i = 0; i < 2 * DEVICES; i++) {
      await clock.pass(10_000)
      slow.read()
    }
    expect(client.devices.size).toBe(DEVICES)
    expect(slow.ended).toBe(false)
    expect([sink.ended, sink.destroyed]).toEqual([true, true])
    sink.resume()
    expect(stuck.events.at(-1)?.data).toBe('{"reason":"slow-reader"}')
  })
})

describe('devices that came and went', () => {
  beforeEach(() => {
    log.padding = 0
  })

  it('do not take the places of those that come after them', async () => {
    const client = new Client(clock)
    const subject = { text: 'x:>5', matcher: new Matcher(parseQuery('reported.x:>5')) }
    await follow(streams({ maxDevices: DEVICES }), client, { subject })
    await settled()
    log.put('kept', 9)
    for (let i = 0; i < 2 * DEVICES; i++) {
      for (const x of [1, undefined]) log.put(`device-${i}`, x)
    }
    await clock.pass(1_000)
    for (let x = 0; x < 5; x++) {
      log.put('kept', 9)
      log.put('other', x)
      await clock.pass(1_000)
    }
    // What the client has is not known for once when numbers begin anew.
    expect(client.named('leave').filter(({ data }) => data.includes('"other"')).length).toBeLessThanOrEqual(1)
    expect(client.named('change').length).toBeGreaterThanOrEqual(3)
    expect(client.devices).toEqual(new Map([['kept', 9]]))
  })

  it('make nobody forget when it is others that are too many', async () => {
    const client = new Client(clock)
    await follow(streams({ maxDevices: DEVICES }), client, { snapshot: false })
    fill()
    for (let i = 0; i < DEVICES; i++) log.put(`more-${i}`, 1)
    await clock.pass(1_000)
    fill()
    await clock.pass(1_000)
    expect(client.named('change')).toHaveLength(DEVICES)
  })
})

describe('devices that are not to be had', () => {
  const hot = { text: 'x:>5', matcher: new Matcher(parseQuery('reported.x:>5')) }

  it('wait by their ids, for all streams at once when numbers begin anew', async () => {
    const process = streams({ maxDevices: DEVICES, maxWaitingBytesInAll: DEVICES * STATUS_BYTES })
    const clients = Array.from({ length: 5 }, () => new Client(clock))
    const sinks: FakeSink[] = []
    for (const client of clients) sinks.push(await follow(process, client, { subject: hot }))
    await clock.pass(1_000)
    for (let i = 0; i < DEVICES; i++) log.put(`old-${i}`, undefined)
    await clock.pass(1_000)
    for (const sink of sinks) sink.stalled = true
    // What is written first is not taken, and all else waits behind it.
    log.put('first', 9)
    await clock.pass(1_000)
    fill(() => 1)
    await clock.pass(1_000)
    expect(following.waitingBytes).toBeGreaterThan(0)
    for (const sink of sinks) sink.resume()
    await clock.pass(1_000)
    expect(sinks.map(({ ended }) => ended)).toEqual(sinks.map(() => false))
    for (const client of clients) expect(client.named('leave')).toHaveLength(DEVICES)
    expect(following.waitingBytes).toBe(0)
  })

  it.each([
    ['deleted', undefined],
    ['not matching', 1],
  ])('count while they wait: %s', async (_, x) => {
    log.padding = 0
    const client = new Client(clock)
    const before = await follow(streams(), client, { subject: hot })
    await clock.pass(1_000)
    before.cut()
    // What the client of a stream that goes on has is not known.
    const sink = await follow(streams({ maxWaitingBytes: 50 * DEVICES }), client, { subject: hot })
    await clock.pass(1_000)
    sink.stalled = true
    log.put('first', 9)
    await clock.pass(1_000)
    fill(() => x)
    await clock.pass(1_000)
    sink.resume()
    expect(client.events.at(-1)?.data).toBe('{"reason":"slow-reader"}')
    expect(following.waitingBytes).toBe(0)
  })
})

describe('what waits', () => {
  it.each(['at hand', 'in the log'])('is taken back when a stream ends within changes that are %s', async (where) => {
    const client = new Client(clock)
    const process = streams({ maxWaitingBytes: STATUS_BYTES / 2, ...(where === 'in the log' && { recentRecords: 1 }) })
    const first = await follow(process, client)
    await settled()
    first.cut()
    await follow(process, new Client(clock), { subject: { deviceId: 'another' } })
    fill()
    await clock.pass(1_000)
    const again = await follow(process, client)
    await clock.pass(1_000)
    expect(client.events.at(-1)?.data).toBe('{"reason":"slow-reader"}')
    expect(again.ended).toBe(true)
    expect(following.waitingBytes).toBe(0)
  })
})
