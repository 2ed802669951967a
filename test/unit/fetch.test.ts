import pino from 'pino'
import { describe, expect, test, vi } from 'vitest'
import type { BrokerConnection } from '../../processor/log/kafka-broker.ts'
import type { KafkaCluster } from '../../processor/log/kafka-cluster.ts'
import { fetch } from '../../processor/log/kafka-fetch.ts'
import { KafkaFetcher } from '../../processor/log/kafka-follow.ts'
import { WireWriter } from '../../processor/log/kafka-wire.ts'
import { LIMITS, record, text } from '../contract/log-records.ts'
import { batch } from '../kafka/batches.ts'

const UNKNOWN_SERVER_ERROR = -1
const CORRUPT_MESSAGE = 2

interface Answered {
  readonly partition: number
  readonly code: number
  readonly bytes?: Buffer
  readonly lostFrom?: number
  /** The last stable offset. */
  readonly end?: number
}

/** A fetch response, version 12. */
function response(answered: readonly Answered[], code = 0): Buffer {
  const writer = new WireWriter().unsignedVarint(0).int32(0).int16(code).int32(0)
  writer
    .unsignedVarint(2)
    .compactString('t')
    .unsignedVarint(answered.length + 1)
  for (const { partition, code: error, bytes = Buffer.alloc(0), lostFrom, end = 9 } of answered) {
    writer.int32(partition).int16(error).int64(0).int64(end).int64(0).unsignedVarint(1)
    writer
      .int32(-1)
      .unsignedVarint(bytes.length + 1)
      .raw(bytes)
    if (lostFrom === undefined) writer.unsignedVarint(0)
    else writer.unsignedVarint(1).unsignedVarint(0).unsignedVarint(13).int32(0).int64(lostFrom).unsignedVarint(0)
  }
  return writer.unsignedVarint(0).unsignedVarint(0).finish()
}

/** A fetcher of a cluster of one broker, which gives one after the other of `responses`; from then on it says nothing. */
function fetcher(responses: (Buffer | Promise<Buffer>)[]) {
  const lines: string[] = []
  const send = () => {
    const next = responses.shift()
    return next === undefined ? new Promise<Buffer>(() => {}) : Promise.resolve(next)
  }
  const cluster = {
    metadata: () => Promise.resolve({ topics: new Map([['t', { leaders: [1, 1], epochs: [3, 3] }]]) }),
    refresh: () => Promise.resolve(),
    doubt: () => Promise.resolve(undefined),
    connection: () => Promise.resolve({ send } as unknown as BrokerConnection),
  }
  const logger = pino({ level: 'warn' }, { write: (line) => lines.push(line) })
  return { fetcher: new KafkaFetcher(cluster as unknown as KafkaCluster, logger), lines }
}

/** All that does not wait for time or others has been done. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
}

async function first(following: ReturnType<KafkaFetcher['follow']>): Promise<string[]> {
  const { value } = await following.next()
  return value?.records.map(text) ?? []
}

describe('a fetch', () => {
  const never = new AbortController().signal
  const given: Answered = { partition: 0, code: 0, bytes: batch([record('a', 'given')], 0) }

  test('at which a broker fails is made again, whether one partition or the request failed', async () => {
    const failed = response([{ partition: 0, code: UNKNOWN_SERVER_ERROR }])
    const { fetcher: fetching, lines } = fetcher([
      failed,
      failed,
      response([], UNKNOWN_SERVER_ERROR),
      response([given]),
    ])
    expect(await first(fetching.follow('t', 0, 0, LIMITS, never))).toEqual(['given'])
    expect(lines).toHaveLength(1)
    fetching.close()
  })

  test('keeps of what is little beside all else no more than a few times as much', async () => {
    const others = { partition: 1, code: 0, bytes: Buffer.alloc(100_000) }
    const connection = { send: () => Promise.resolve(response([given, others])) } as unknown as BrokerConnection
    const limits = { maxWaitMs: 0, maxBytes: 0, maxPartitionBytes: 0 }
    const [little, much] = await fetch(connection, [], limits, () => undefined)
    expect(little?.bytes).toEqual(given.bytes)
    expect(little?.bytes.buffer.byteLength).toBe(given.bytes?.length)
    expect(much?.bytes).toEqual(others.bytes)
  })

  test('behind records that took the place of those that were fetched before fails', async () => {
    const gone = { partition: 0, code: 0, lostFrom: 0 }
    const { fetcher: fetching } = fetcher([response([given]), response([gone])])
    const following = fetching.follow('t', 0, 0, LIMITS, never)
    expect(await first(following)).toEqual(['given'])
    await expect(following.next()).rejects.toMatchObject({
      name: 'CorruptedError',
      code: 'OFFSET_OUT_OF_RANGE',
      message: expect.stringMatching(/^t 0: offset 1 was read to, but what stood at 0 and after it is gone/),
    })
    fetching.close()
  })

  test('of a leader that has all of it, and knows less of who wrote it, goes on', async () => {
    const next: Answered = { partition: 0, code: 0, bytes: batch([record('a', 'next')], 1) }
    const unknowing = { partition: 0, code: 0, lostFrom: 1 }
    const { fetcher: fetching } = fetcher([response([given]), response([unknowing]), response([next])])
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
    answer(response([given]))
    await settled()
    expect(fetching.epochOf('t', 0)).toBeUndefined()
    fetching.close()
  })

  test('for a partition that is behind does not wait for one that has come to its end', async () => {
    const ended: Answered = { ...given, end: 1 }
    const behind: Answered = { partition: 1, code: 0, bytes: batch([record('b', 'first')], 0), end: 2 }
    const more: Answered = { partition: 1, code: 0, bytes: batch([record('b', 'second')], 1), end: 2 }
    // The third request is for the end of partition 0, and is not answered.
    const { fetcher: fetching } = fetcher([
      response([ended]),
      response([behind]),
      new Promise(() => {}),
      response([more]),
    ])
    const atEnd = fetching.follow('t', 0, 0, LIMITS, never)
    const following = fetching.follow('t', 1, 0, LIMITS, never)
    expect(await Promise.all([first(atEnd), first(following)])).toEqual([['given'], ['first']])
    void atEnd.next()
    expect(await first(following)).toEqual(['second'])
    fetching.close()
  })

  test('of a batch that its leader finds damaged fails that partition alone, as one to be read again', async () => {
    const { fetcher: fetching } = fetcher([
      response([]),
      response([]),
      response([{ partition: 1, code: CORRUPT_MESSAGE }, given]),
    ])
    const whole = first(fetching.follow('t', 0, 0, LIMITS, never))
    const damaged = first(fetching.follow('t', 1, 0, LIMITS, never))
    await expect(damaged).rejects.toMatchObject({ name: 'CorruptedError', code: 'LOG_CORRUPTED' })
    await vi.waitFor(async () => expect(await whole).toEqual(['given']))
    fetching.close()
  })
})
