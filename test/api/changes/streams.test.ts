import { beforeEach, describe, expect, it } from 'vitest'
import { Positions } from '../../../api/changes/resume.ts'
import { Matcher } from '../../../processor/search/language/match.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'
import { Changelog } from './changelog.ts'
import { Client, FakeClock, settled, told } from './client.ts'
import { ANYONE, follow, streamsOver } from './stage.ts'

const OVER_FIVE = { text: 'x:>5', matcher: new Matcher(parseQuery('reported.x:>5')) }

let log: Changelog
let clock: FakeClock
let client: Client

beforeEach(() => {
  log = new Changelog(2)
  clock = new FakeClock()
  client = new Client(clock)
})

const streams = (options: Parameters<typeof streamsOver>[2] = {}) => streamsOver(log, clock, options)

function at(offsets: (number | undefined)[], seconds = 0, name: unknown = ['memory', '', null]): string {
  return new Positions(JSON.stringify(name), 2).encode({ offsets, atSeconds: clock.now() / 1000 - seconds })
}

describe('what a stream tells', () => {
  it('is all that matches, then what enters, changes and leaves', async () => {
    log.put('a', 9)
    log.put('b', 1)
    await follow(streams(), client, { subject: OVER_FIVE })
    await settled()
    expect(told(client)).toEqual(['reset start', 'enter a 9', 'snapshot-end 1'])
    const steps: [string, number | undefined][] = [
      ['b', 2],
      ['b', 7],
      ['a', 8],
      ['b', 3],
      ['b', 4],
      ['c', undefined],
      ['a', undefined],
    ]
    for (const [deviceId, x] of steps) {
      log.put(deviceId, x)
      await clock.pass(300)
    }
    expect(told(client).slice(3)).toEqual(['enter b 7', 'change a 8', 'leave b', 'leave a deleted'])
  })

  it('is, without a snapshot, what changes from now on', async () => {
    log.put('a', 1)
    await follow(streams(), client, { snapshot: false })
    await clock.pass(300)
    expect(client.lastEventId).not.toBe('')
    log.put('b', 2)
    await clock.pass(300)
    expect(told(client)).toEqual(['reset start', 'enter b 2'])
  })

  it('is of one device, also before there is one', async () => {
    await follow(streams(), client, { subject: { deviceId: 'a' } })
    await settled()
    log.put('b', 1)
    log.put('a', 2)
    await clock.pass(300)
    expect(told(client)).toEqual(['reset start', 'snapshot-end 0', 'enter a 2'])
  })

  it('is only of devices that the caller may see', async () => {
    for (const id of ['k1-a', 'k2-a', 'k1-b', 'x']) log.put(id, 1)
    const caller = { ...ANYONE, prefixes: ['k1-'] }
    await follow(streams({ limits: { snapshotPage: 1 } }), client, { caller })
    await settled()
    for (const id of ['k1-a', 'k2-a', 'k1-c', 'x']) log.put(id, 2)
    await clock.pass(300)
    expect(told(client).toSorted()).toEqual(
      ['reset start', 'enter k1-a 1', 'enter k1-b 1', 'snapshot-end 2', 'change k1-a 2', 'enter k1-c 2'].toSorted(),
    )
  })

  it('is at most four events a second of a device, the last of them its newest status', async () => {
    await follow(streams(), client)
    await settled()
    for (let x = 1; x <= 100; x++) {
      log.put('busy', x)
      if (x % 50 === 1) log.put(`quiet-${x}`, x)
      await clock.pass(20)
    }
    const changes = client.events.filter(({ data }) => data.includes('"busy"'))
    for (let i = 1; i < changes.length; i++)
      expect((changes[i]?.at ?? 0) - (changes[i - 1]?.at ?? 0)).toBeGreaterThanOrEqual(250)
    expect(changes.length).toBeGreaterThan(6)
    // Others need not wait for it.
    const second = client.events.find(({ data }) => data.includes('"quiet-51"'))
    expect((second?.at ?? 0) - (client.events[0]?.at ?? 0)).toBeLessThanOrEqual(1_000 + 120)
    await clock.pass(300)
    expect(client.devices.get('busy')).toBe(100)
  })

  it('moves the position while nothing matches, and keeps the connection open', async () => {
    await follow(streams(), client, { subject: OVER_FIVE })
    await settled()
    const before = client.lastEventId
    log.put('a', 1)
    await clock.pass(16_000)
    expect(client.events.map(({ name }) => name)).toEqual(['reset', 'snapshot-end', 'position'])
    expect(client.lastEventId).not.toBe(before)
  })
})

describe('a stream that comes back', () => {
  it('goes on in another process, and misses no change that waited when it broke', async () => {
    const sink = await follow(streams(), client)
    await settled()
    log.put('a', 1)
    await clock.pass(100)
    // b is told at once, with an id; a waits, as it was told of just before.
    log.put('a', 2)
    log.put('b', 1)
    await clock.pass(100)
    expect(told(client).slice(2)).toEqual(['enter a 1', 'enter b 1'])
    sink.cut()
    await follow(streams(), client)
    await clock.pass(300)
    expect(told(client).filter((event) => event.startsWith('reset'))).toHaveLength(1)
    expect(client.devices).toEqual(log.devices())
  })

  it('says that a device has left of which this process does not know whether the client has it', async () => {
    log.put('a', 9)
    const sink = await follow(streams(), client, { subject: OVER_FIVE })
    await settled()
    sink.cut()
    log.put('a', 1)
    log.put('b', 1)
    await follow(streams(), client, { subject: OVER_FIVE })
    await clock.pass(300)
    expect(told(client).slice(3).toSorted()).toEqual(['leave a', 'leave b'])
  })

  it('begins anew, and says why, where it cannot go on', async () => {
    for (let x = 0; x < 20; x++) log.put('a', x)
    const cases: [string, string][] = [
      ['nonsense', 'position-malformed'],
      [at([0, 0], 0, ['another', '', null]), 'position-of-another-stream'],
      [at([0, 0], 0, ['memory', 'x:>5', null]), 'position-of-another-stream'],
      [at([0, 0], 0, ['memory', '', ['k1']]), 'position-of-another-stream'],
      [at([0, 0], 13 * 3600), 'position-expired'],
      [at([0, 0], -13 * 3600), 'position-expired'],
      [at([0, 0]), 'position-too-old'],
      [at([100, 100]), 'position-out-of-range'],
    ]
    const process = streams({ limits: { maxBehind: 19 } })
    for (const [lastEventId, reason] of cases) {
      const one = new Client(clock)
      one.lastEventId = lastEventId
      const sink = await follow(process, one)
      await clock.pass(300)
      expect(told(one)).toEqual([`reset ${reason}`, 'enter a 19', 'snapshot-end 1'])
      sink.cut()
    }
  })

  it('has nothing to resume while a snapshot is not whole', async () => {
    log.put('a', 1)
    client.lastEventId = 'nonsense'
    const sink = await follow(streams(), client, { stalled: true })
    await settled()
    sink.read()
    sink.read()
    expect(told(client)).toEqual(['reset position-malformed'])
    expect(client.lastEventId).toBe('-')
    sink.cut()
    await follow(streams(), client)
    await clock.pass(300)
    expect(told(client).slice(1)).toEqual(['reset start', 'enter a 1', 'snapshot-end 1'])
  })

  it('reads a device instead of all that happened since', async () => {
    const sink = await follow(streams(), client, { subject: { deviceId: 'a' } })
    await settled()
    sink.cut()
    log.put('a', 1)
    for (let x = 0; x < 50; x++) log.put(`b${x}`, x)
    let read = 0
    const feed = log.feed()
    const counting = { ...feed, follow: (...of: Parameters<typeof feed.follow>) => (read++, feed.follow(...of)) }
    await follow(streams({ feed: counting, limits: { recentRecords: 1 } }), client, { subject: { deviceId: 'a' } })
    await clock.pass(300)
    expect(client.devices).toEqual(new Map([['a', 1]]))
    expect(read).toBe(2)
  })
})

describe('bounds', () => {
  it('cuts a client that does not read, says why when it can, and leaves others alone', async () => {
    const process = streams({ limits: { maxWaitingBytes: 4_000 } })
    const slow = new Client(clock)
    const stuck = await follow(process, slow)
    await follow(process, client)
    await settled()
    stuck.stalled = true
    for (let x = 0; x < 50; x++) {
      log.put(`device-${x}`, x)
      await clock.pass(100)
    }
    expect(stuck.ended).toBe(true)
    expect(client.devices.size).toBe(50)
    await clock.pass(5_000)
    expect(stuck.destroyed).toBe(true)
    stuck.resume()
    expect(told(slow).at(-1)).toBe('end slow-reader')
  })

  it('holds for all streams together', async () => {
    const process = streams({ limits: { maxWaitingBytesInAll: 6_000 } })
    const sinks = await Promise.all([1, 2, 3].map(() => follow(process, new Client(clock))))
    await settled()
    for (const sink of sinks) sink.stalled = true
    log.put('first', 0)
    await clock.pass(100)
    for (let x = 0; x < 50; x++) log.put(`device-${x}`, x)
    await clock.pass(1_000)
    expect(sinks.map(({ ended }) => ended)).toContain(true)
  })

  it('refuses one stream too many, and admits it when another has ended', async () => {
    const process = streams({ limits: { maxStreams: 1 } })
    const sink = await follow(process, client)
    await expect(follow(process, new Client(clock))).rejects.toMatchObject({ kind: 'overloaded' })
    sink.cut()
    await follow(process, new Client(clock))
  })

  it('tells right of more devices than it can tell apart', async () => {
    await follow(streams({ limits: { maxDevices: 1 } }), client, { subject: OVER_FIVE })
    await settled()
    for (const x of [9, 1]) {
      for (const id of ['a', 'b', 'c']) log.put(id, x)
      await clock.pass(300)
    }
    expect(client.devices.size).toBe(0)
    expect(client.named('enter')).toHaveLength(3)
  })

  it('reads the changelog once for all streams, while there are any', async () => {
    const feed = log.feed()
    let reading = 0
    const counting: typeof feed = {
      ...feed,
      async *follow(partition, from, signal) {
        reading++
        yield* feed.follow(partition, from, signal)
        reading--
      },
    }
    const process = streams({ feed: counting })
    const sinks = await Promise.all([1, 2, 3].map(() => follow(process, new Client(clock))))
    await settled()
    expect(reading).toBe(2)
    for (const sink of sinks) sink.cut()
    await settled()
    expect(reading).toBe(0)
  })
})
