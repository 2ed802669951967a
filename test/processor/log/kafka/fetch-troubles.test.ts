import pino from 'pino'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { KafkaCluster } from '../../../../processor/log/kafka/cluster.ts'
import { KafkaFetcher } from '../../../../processor/log/kafka/fetcher.ts'
import type { BrokerConnection } from '../../../../processor/log/kafka/protocol/broker.ts'
import { LIMITS, record } from '../../../contract/log-records.ts'
import { batch } from '../../../kafka/batches.ts'
import { fetchAnswer } from './fetch-answer.ts'

const NOT_LEADER_OR_FOLLOWER = 6
const LEADER = 7
const TOLD = 'fetches from a broker fail for 10 s now'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

/** Of a broker that leads two partitions, and whose answer to a fetch is what `answer` gives. */
function fetcher(answer: () => Promise<Buffer>) {
  const lines: string[] = []
  const logger = pino({ level: 'info' }, { write: (line) => lines.push(line) })
  const cluster = {
    metadata: () => Promise.resolve({ topics: new Map([['t', { leaders: [LEADER, LEADER], epochs: [3, 3] }]]) }),
    refresh: () => Promise.resolve(),
    connection: () => Promise.resolve({ send: answer } as unknown as BrokerConnection),
  }
  const told = (): object[] => lines.map((line) => JSON.parse(line))
  return { fetching: new KafkaFetcher(cluster as unknown as KafkaCluster, logger), told }
}

function unanswered(): Promise<Buffer> {
  return Promise.reject(Object.assign(new Error('Request Fetch timed out'), { name: 'KafkaJSRequestTimeoutError' }))
}

const given = fetchAnswer([0, 1].map((partition) => ({ partition, code: 0, bytes: batch([record('a', 'b')], 0) })))
const refused = fetchAnswer([0, 1].map((partition) => ({ partition, code: NOT_LEADER_OR_FOLLOWER })))

describe('a broker whose fetches fail', () => {
  test.each([
    ['without an answer', 'Request Fetch timed out', unanswered],
    ['for each partition', 'This server is not the leader for that topic-partition', () => Promise.resolve(refused)],
  ])('for 10 s, %s, is told of, and again each minute', async (_, message, failing) => {
    let answer: () => Promise<Buffer> = failing
    const { fetching, told } = fetcher(() => answer())
    const stop = new AbortController()
    const read = [0, 1].map((index) => fetching.follow('t', index, 0, LIMITS, stop.signal).next())
    await vi.advanceTimersByTimeAsync(9_900)
    expect(told()).toEqual([])
    await vi.advanceTimersByTimeAsync(50_000)
    const first = { level: 40, msg: TOLD, broker: LEADER, topic: 't', err: { message } }
    expect(told()).toMatchObject([first])
    await vi.advanceTimersByTimeAsync(20_000)
    expect(told()).toMatchObject([first, { msg: expect.stringMatching(/^fetches from a broker fail for 7\d s now$/) }])
    answer = () => Promise.resolve(given)
    await vi.advanceTimersByTimeAsync(120_000)
    await Promise.all(read)
    expect(told()).toHaveLength(2)
    stop.abort()
    fetching.close()
  })

  test('now and then is not told of', async () => {
    let fetches = 0
    const { fetching, told } = fetcher(() =>
      ++fetches % 5 === 0 ? Promise.resolve(fetchAnswer([{ partition: 0, code: 0, end: 0 }])) : unanswered(),
    )
    void fetching.follow('t', 0, 0, LIMITS, new AbortController().signal).next()
    await vi.advanceTimersByTimeAsync(5_000)
    expect(fetches).toBeGreaterThan(10)
    await vi.advanceTimersByTimeAsync(30_000)
    expect(told()).toEqual([])
    fetching.close()
  })

  test('is not told of for one failure, however late it comes', async () => {
    const late = new Promise((resolve) => setTimeout(resolve, 15_000)).then(unanswered)
    const answers = [late, Promise.resolve(given)]
    const { fetching, told } = fetcher(() => answers.shift() ?? new Promise(() => {}))
    const read = fetching.follow('t', 0, 0, LIMITS, new AbortController().signal).next()
    await vi.advanceTimersByTimeAsync(60_000)
    await read
    expect(told()).toEqual([])
    fetching.close()
  })
})
