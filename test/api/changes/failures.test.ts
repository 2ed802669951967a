import { beforeEach, describe, expect, it } from 'vitest'
import { UnavailableError } from '../../../processor/contract/errors.ts'
import { Changelog } from './changelog.ts'
import { Client, FakeClock, settled, told } from './client.ts'
import { ANYONE, EVERYTHING, follow, streamsOver } from './stage.ts'

let log: Changelog
let clock: FakeClock
let client: Client

beforeEach(() => {
  log = new Changelog(2)
  clock = new FakeClock()
  client = new Client(clock)
})

const streams = (options: Parameters<typeof streamsOver>[2] = {}) => streamsOver(log, clock, options)

describe('when something fails', () => {
  it('ends the streams of a process that stops, which go on elsewhere', async () => {
    const process = streams()
    const sink = await follow(process, client)
    await settled()
    await process.close()
    expect(told(client).at(-1)).toBe('end shutdown')
    expect(sink.ended).toBe(true)
    await expect(follow(process, client)).rejects.toMatchObject({ kind: 'overloaded' })
    log.put('a', 1)
    await follow(streams(), client)
    await clock.pass(300)
    expect(told(client).slice(-2)).toEqual(['end shutdown', 'enter a 1'])
  })

  it('refuses a stream that would have opened when its process stops', async () => {
    const feed = log.feed()
    const { promise: answers, resolve: answer } = Promise.withResolvers<void>()
    const bounds: typeof feed.bounds = async (of) => answers.then(() => feed.bounds(of))
    const process = streams({ feed: { ...feed, bounds } })
    const opening = expect(follow(process, client)).rejects.toMatchObject({
      kind: 'overloaded',
      message: 'this process is shutting down',
    })
    const closed = process.close()
    answer()
    await opening
    await closed
    expect(told(client)).toEqual([])
  })

  it('ends a stream when its token expires', async () => {
    const caller = { ...ANYONE, expiresAt: clock.now() + 10_000 }
    const sink = await follow(streams(), client, { caller })
    await clock.pass(9_999)
    expect(sink.ended).toBe(false)
    await clock.pass(1)
    expect(told(client).at(-1)).toBe('end token-expired')
  })

  it('waits for a partition that nobody answers for, and gives up in the end', async () => {
    let fault = true
    const listPartition: typeof log.reader.listPartition = (...asked) => {
      if (fault) return Promise.reject(new UnavailableError('PARTITION_UNAVAILABLE', 'nobody'))
      return log.reader.listPartition(...asked)
    }
    const process = streams({ reader: { ...log.reader, listPartition } })
    await follow(process, client)
    await clock.pass(1_000)
    fault = false
    await clock.pass(1_000)
    expect(told(client)).toEqual(['reset start', 'snapshot-end 0'])
    fault = true
    const other = new Client(clock)
    await follow(process, other)
    await clock.pass(11_000)
    expect(told(other)).toEqual(['reset start', 'end unavailable'])
  })

  it('is refused while the changelog cannot be read, and tried again by the next', async () => {
    const feed = log.feed()
    let fault = true
    const bounds: typeof feed.bounds = (of) => (fault ? Promise.reject(new Error('no broker')) : feed.bounds(of))
    const process = streams({ feed: { ...feed, bounds } })
    await expect(follow(process, client)).rejects.toMatchObject({ code: 'LOG_UNAVAILABLE' })
    fault = false
    await follow(process, client, { subject: EVERYTHING })
    await settled()
    expect(told(client)).toEqual(['reset start', 'snapshot-end 0'])
  })

  it('begins anew when the changelog no longer has what follows', async () => {
    const feed = log.feed()
    let lost = false
    const follower: typeof feed = {
      ...feed,
      async *follow(partition, from, signal) {
        for await (const batch of feed.follow(partition, from, signal)) {
          if (lost && partition === 0) {
            lost = false
            yield* feed.follow(partition, 1_000, signal)
          }
          yield batch
        }
      },
    }
    await follow(streams({ feed: follower }), client)
    await settled()
    lost = true
    for (const id of ['a', 'b', 'c', 'd']) log.put(id, 1)
    await clock.pass(2_000)
    expect(client.devices).toEqual(log.devices())
    expect(told(client)).toContain('reset position-out-of-range')
    log.put('a', 2)
    await clock.pass(500)
    expect(client.devices).toEqual(log.devices())
  })
})
