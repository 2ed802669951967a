import pino from 'pino'
import { describe, expect, test, vi } from 'vitest'
import type { KafkaCluster } from '../../../../processor/log/kafka/cluster.ts'
import { KafkaFetcher } from '../../../../processor/log/kafka/fetcher.ts'
import type { BrokerConnection } from '../../../../processor/log/kafka/protocol/broker.ts'
import { fetch } from '../../../../processor/log/kafka/protocol/fetch.ts'
import { LEADER_EPOCH_AT, LENGTH_AT } from '../../../../processor/log/kafka/protocol/record-batch.ts'
import { WireReader } from '../../../../processor/log/kafka/protocol/wire.ts'
import { LIMITS, record, sized, text } from '../../../contract/log-records.ts'
import { batch } from '../../../kafka/batches.ts'
import { type Answered, fetchAnswer } from './fetch-answer.ts'

const MIB = 1024 * 1024
const UNKNOWN_SERVER_ERROR = -1
const CORRUPT_MESSAGE = 2
const NOT_LEADER_OR_FOLLOWER = 6
/** Attributes of a batch: transactional, and a control batch. */
const MARKER = 0x30

interface Asked {
  readonly lane: string
  readonly partitions: number[]
  readonly partitionBytes: number[]
}

/** What a fetch request of version 12 asks for. */
function asked(lane: string, body: Buffer): Asked {
  const partitions: number[] = []
  const partitionBytes: number[] = []
  const reader = new WireReader(body)
  reader.tags()
  for (let field = 0; field < 4; field++) reader.int32()
  reader.int8()
  reader.int32()
  reader.int32()
  reader.compactArray(() => {
    reader.compactString()
    reader.compactArray(() => {
      partitions.push(reader.int32())
      reader.int32()
      reader.int64()
      reader.int32()
      reader.int64()
      partitionBytes.push(reader.int32())
      reader.tags()
    })
    reader.tags()
  })
  return { lane, partitions, partitionBytes }
}

/** A fetcher of a cluster of one broker, which gives one after the other of `responses`; from then on it says nothing. */
function fetcher(responses: (Buffer | Promise<Buffer>)[]) {
  const lines: string[] = []
  const requests: Asked[] = []
  const connection = (lane: string) => {
    const send = (_key: number, _name: string, _version: number, [body]: [Buffer]) => {
      requests.push(asked(lane, body))
      const next = responses.shift()
      return next === undefined ? new Promise<Buffer>(() => {}) : Promise.resolve(next)
    }
    return Promise.resolve({ send } as unknown as BrokerConnection)
  }
  const cluster = {
    metadata: () => Promise.resolve({ topics: new Map([['t', { leaders: [1, 1], epochs: [3, 3] }]]) }),
    refresh: () => Promise.resolve(),
    doubt: () => Promise.resolve(undefined),
    connection,
  }
  const logger = pino({ level: 'warn' }, { write: (line) => lines.push(line) })
  return { fetcher: new KafkaFetcher(cluster as unknown as KafkaCluster, logger), lines, requests }
}

/** All that does not wait for time or others has been done. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
}

type Following = ReturnType<KafkaFetcher['follow']>

async function first(following: Following): Promise<string[]> {
  const { value } = await following.next()
  return value?.records.map(text) ?? []
}

/** Bytes of one record; `end`: the last stable offset; `epoch`: of the leader that wrote it. */
function of(partition: number, value: string, offset: number, end: number, epoch = 0): Answered {
  const bytes = batch([record('a', value)], offset)
  bytes.writeInt32BE(epoch, LEADER_EPOCH_AT)
  return { partition, code: 0, bytes, end }
}

describe('a fetch', () => {
  const never = new AbortController().signal
  const given: Answered = { partition: 0, code: 0, bytes: batch([record('a', 'given')], 0) }

  test('at which a broker fails is made again, whether one partition or the request failed', async () => {
    const failed = fetchAnswer([{ partition: 0, code: UNKNOWN_SERVER_ERROR }])
    const { fetcher: fetching, lines } = fetcher([
      failed,
      failed,
      fetchAnswer([], UNKNOWN_SERVER_ERROR),
      fetchAnswer([given]),
    ])
    expect(await first(fetching.follow('t', 0, 0, LIMITS, never))).toEqual(['given'])
    expect(lines).toHaveLength(1)
    fetching.close()
  })

  test('keeps of what is little beside all else no more than a few times as much', async () => {
    const others = { partition: 1, code: 0, bytes: Buffer.alloc(100_000) }
    const connection = { send: () => Promise.resolve(fetchAnswer([given, others])) } as unknown as BrokerConnection
    const limits = { maxWaitMs: 0, maxBytes: 0, maxPartitionBytes: 0 }
    const [little, much] = await fetch(connection, [], limits, () => undefined)
    expect(little?.bytes).toEqual(given.bytes)
    expect(little?.bytes.buffer.byteLength).toBe(given.bytes?.length)
    expect(much?.bytes).toEqual(others.bytes)
  })

  test('behind records that took the place of those that were fetched before fails', async () => {
    const gone = { partition: 0, code: 0, lostFrom: 0 }
    const { fetcher: fetching } = fetcher([fetchAnswer([given]), fetchAnswer([gone])])
    const following = fetching.follow('t', 0, 0, LIMITS, never)
    expect(await first(following)).toEqual(['given'])
    await expect(following.next()).rejects.toMatchObject({
      name: 'OffsetOutOfRangeError',
      code: 'OFFSET_OUT_OF_RANGE',
      message: expect.stringMatching(/^t 0: offset 1 was read to, but what stood at 0 and after it is gone/),
    })
    fetching.close()
  })

  test('of a leader that has all of it, and knows less of who wrote it, goes on', async () => {
    const next: Answered = { partition: 0, code: 0, bytes: batch([record('a', 'next')], 1) }
    const unknowing = { partition: 0, code: 0, lostFrom: 1 }
    const { fetcher: fetching } = fetcher([fetchAnswer([given]), fetchAnswer([unknowing]), fetchAnswer([next])])
    const following = fetching.follow('t', 0, 0, LIMITS, never)
    expect(await first(following)).toEqual(['given'])
    expect(await first(following)).toEqual(['next'])
    fetching.close()
  })

  test('that is answered when its reader has ended tells nothing of who wrote what was read since', async () => {
    const { promise: late, resolve: answer } = Promise.withResolvers<Buffer>()
    const { fetcher: fetching } = fetcher([late])
    const ended = new AbortController()
    const following = fetching.follow('t', 0, 0, LIMITS, ended.signal)
    const nothing = following.next()
    await settled()
    ended.abort()
    await nothing
    answer(fetchAnswer([given]))
    await settled()
    expect(fetching.epochOf('t', 0)).toBeUndefined()
    fetching.close()
  })

  test('for a partition that is behind does not wait for one that has come to its end', async () => {
    // The third request is for the end of partition 0, and is not answered.
    const { fetcher: fetching, requests } = fetcher([
      fetchAnswer([of(0, 'last', 0, 1)]),
      fetchAnswer([of(1, 'first', 0, 2)]),
      new Promise(() => {}),
      fetchAnswer([of(1, 'second', 1, 2)]),
    ])
    const atEnd = fetching.follow('t', 0, 0, LIMITS, never)
    const following = fetching.follow('t', 1, 0, LIMITS, never)
    expect(await Promise.all([first(atEnd), first(following)])).toEqual([['last'], ['first']])
    void atEnd.next()
    expect(await first(following)).toEqual(['second'])
    const [look, , waiting, behind] = requests
    expect(new Set([look?.lane, waiting?.lane, behind?.lane]).size).toBe(3)
    fetching.close()
  })

  test('whose first one failed does not wait for another reader of the partition at its end', async () => {
    const { fetcher: fetching } = fetcher([
      fetchAnswer([{ partition: 0, code: 0, end: 1 }]),
      new Promise(() => {}),
      fetchAnswer([{ partition: 0, code: NOT_LEADER_OR_FOLLOWER }]),
      fetchAnswer([of(0, 'last', 0, 1)]),
    ])
    void fetching.follow('t', 0, 1, LIMITS, never).next()
    await settled()
    expect(await first(fetching.follow('t', 0, 0, LIMITS, never))).toEqual(['last'])
    fetching.close()
  })

  test('asks last for the partition that was given something last', async () => {
    const { fetcher: fetching, requests } = fetcher([
      fetchAnswer([of(0, 'first', 0, 9)]),
      fetchAnswer([of(1, 'first', 0, 9)]),
      fetchAnswer([of(0, 'second', 1, 9)]),
      fetchAnswer([of(1, 'second', 1, 9)]),
    ])
    const [one, other] = [0, 1].map((index) => fetching.follow('t', index, 0, LIMITS, never)) as [Following, Following]
    expect(await Promise.all([first(one), first(other)])).toEqual([['first'], ['first']])
    expect(await Promise.all([first(one), first(other)])).toEqual([['second'], ['second']])
    const [, , ...polls] = requests
    expect(polls.slice(0, 2).map(({ partitions }) => partitions)).toEqual([
      [0, 1],
      [1, 0],
    ])
    fetching.close()
  })

  test('takes little of a partition while much is unread', async () => {
    const bytes = Buffer.concat([batch([sized('k', 40 * MIB)], 0), batch([record('k', 'unread')], 1)])
    const answers = [0, 1].map((partition) => fetchAnswer([{ partition, code: 0, bytes, end: 2 }]))
    const { fetcher: fetching, requests } = fetcher(answers)
    const one = { ...LIMITS, maxRecords: 1 }
    const following = [0, 1].map((index) => fetching.follow('t', index, 0, one, never))
    await Promise.all(following.map((each) => each.next()))
    void fetching.follow('t', 0, 0, one, never).next()
    await settled()
    expect(requests.map(({ partitionBytes }) => partitionBytes)).toEqual([[2 * MIB], [2 * MIB], [MIB / 16]])
    fetching.close()
  })

  test('asks for little of most partitions that are begun at once', async () => {
    const { fetcher: fetching, requests } = fetcher([])
    for (let index = 0; index < 256; index++) void fetching.follow('t', index, 0, LIMITS, never).next()
    await vi.waitFor(() => expect(requests).toHaveLength(256))
    const bytes = requests.map(({ partitionBytes }) => partitionBytes[0] ?? 0)
    expect(bytes.reduce((sum, each) => sum + each)).toBeLessThanOrEqual(66 * MIB + (256 * MIB) / 16)
    expect(bytes.slice(0, 16)).toEqual(Array.from({ length: 16 }, () => 2 * MIB))
    fetching.close()
  })

  test('for a partition whose log was cut behind it waits at the new end', async () => {
    const { fetcher: fetching, requests } = fetcher([
      fetchAnswer([of(0, 'first', 0, 9)]),
      fetchAnswer([{ partition: 0, code: 0, end: 1 }]),
    ])
    const following = fetching.follow('t', 0, 0, LIMITS, never)
    expect(await first(following)).toEqual(['first'])
    void following.next()
    await vi.waitFor(() => expect(requests).toHaveLength(3))
    expect(requests[2]?.lane).not.toBe(requests[1]?.lane)
    fetching.close()
  })

  test('of a slower reader of a partition tells nothing older of who wrote it', async () => {
    const { promise: late, resolve: answer } = Promise.withResolvers<Buffer>()
    const { fetcher: fetching } = fetcher([late, fetchAnswer([of(0, 'fast', 5, 6, 4)])])
    const slow = first(fetching.follow('t', 0, 0, LIMITS, never))
    expect(await first(fetching.follow('t', 0, 5, LIMITS, never))).toEqual(['fast'])
    answer(fetchAnswer([of(0, 'slow', 0, 6, 3)]))
    expect(await slow).toEqual(['slow'])
    expect(fetching.epochOf('t', 0)).toBe(4)
    fetching.close()
  })

  test('of a batch of an impossible length fails that partition alone, as one to be read again', async () => {
    const impossible = batch([record('a', 'second')], 1)
    impossible.writeInt32BE(-12, LENGTH_AT)
    const { fetcher: fetching } = fetcher([
      fetchAnswer([of(0, 'first', 0, 9)]),
      fetchAnswer([of(1, 'first', 0, 9)]),
      fetchAnswer([{ partition: 0, code: 0, bytes: impossible }, of(1, 'second', 1, 9)]),
    ])
    const [damaged, whole] = [0, 1].map((index) => fetching.follow('t', index, 0, LIMITS, never)) as [
      Following,
      Following,
    ]
    expect(await Promise.all([first(damaged), first(whole)])).toEqual([['first'], ['first']])
    const [failure, records] = await Promise.allSettled([first(damaged), first(whole)])
    expect(failure).toMatchObject({ reason: { name: 'LogCorruptedError', code: 'LOG_CORRUPTED' } })
    expect(records).toMatchObject({ value: ['second'] })
    fetching.close()
  })

  test('of a batch that its leader finds damaged fails that partition alone, as one to be read again', async () => {
    const { fetcher: fetching } = fetcher([
      fetchAnswer([]),
      fetchAnswer([]),
      fetchAnswer([{ partition: 1, code: CORRUPT_MESSAGE }, given]),
    ])
    const whole = first(fetching.follow('t', 0, 0, LIMITS, never))
    const damaged = first(fetching.follow('t', 1, 0, LIMITS, never))
    await expect(damaged).rejects.toMatchObject({ name: 'LogCorruptedError', code: 'LOG_CORRUPTED' })
    await vi.waitFor(async () => expect(await whole).toEqual(['given']))
    fetching.close()
  })

  test('of much that is passed over gives way to others in between', async () => {
    const markers = Array.from({ length: 5000 }, (_, i) => batch([record('\0\0\0\x01', '')], i, 7, MARKER))
    const after = batch([record('a', 'after')], markers.length)
    const bytes = Buffer.concat([...markers, after])
    const { fetcher: fetching } = fetcher([fetchAnswer([{ partition: 0, code: 0, bytes }])])
    let turned = false
    const turn = setImmediate(() => (turned = true))
    const following = fetching.follow('t', 0, 0, LIMITS, never)
    while ((await first(following)).length === 0);
    expect(turned).toBe(true)
    clearImmediate(turn)
    fetching.close()
  })
})
