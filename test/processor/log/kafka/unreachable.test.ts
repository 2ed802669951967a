import pino from 'pino'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { KafkaCluster } from '../../../../processor/log/kafka/cluster.ts'
import { KafkaHealth } from '../../../../processor/log/kafka/health.ts'
import type { Network } from '../../../../processor/log/kafka/protocol/broker.ts'
import { openTopics, topicNames } from '../../../../processor/log/kafka/topics.ts'
import { metadataAnswer, type ToldTopic } from './metadata-answer.ts'

const BALANCER = 'balancer'
const NAMES = topicNames('t')
const LED: ToldTopic = { id: 1, leaders: [{ leader: 0, epoch: 0 }] }
/** Longer than an open waits for Kafka, ms. */
const PATIENCE_MS = 40_000
const logger = pino({ level: 'silent' })

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

function unreached(host: string): Error {
  return Object.assign(new Error(`Connection error: getaddrinfo ENOTFOUND ${host}`), { name: 'KafkaJSConnectionError' })
}

/** Kafka behind a balancer, which lists its brokers as `hosts`; those in `away` are not reached from here. */
function behindBalancer(hosts: readonly string[], away: ReadonlySet<string>) {
  const asked: string[] = []
  const topics = Object.fromEntries(Object.values(NAMES).map((name) => [name, LED]))
  const network = {
    closed: false,
    async connect(host: string) {
      if (away.has(host)) throw unreached(host)
      const reach = (): void => {
        if (away.has(host)) throw unreached(host)
        asked.push(host)
      }
      return {
        get alive() {
          return !away.has(host)
        },
        async send() {
          reach()
          return metadataAnswer(hosts, topics)
        },
        requests: {
          async describeConfigs() {
            reach()
            return { resources: [] }
          },
        },
      }
    },
  } as unknown as Network
  const cluster = new KafkaCluster([`${BALANCER}:9092`], Object.values(NAMES), network, logger)
  return { cluster, asked }
}

/** What becomes of an open; the settings of the topics are not told here. */
async function open(cluster: KafkaCluster): Promise<unknown> {
  const opened = openTopics(cluster, NAMES, { partitions: 1 }, logger).catch((error: unknown) => error)
  await vi.advanceTimersByTimeAsync(PATIENCE_MS)
  return opened
}

describe('a Kafka that is reached by another address than those that its brokers are listed by', () => {
  test('is refused when none of those is reached, and both are named', async () => {
    const { cluster } = behindBalancer(['kafka.invalid'], new Set(['kafka.invalid']))
    expect(await open(cluster)).toMatchObject({
      name: 'RetryableError',
      code: 'BROKERS_UNREACHABLE',
      message:
        'Kafka at balancer:9092 answers, but says that it is at kafka.invalid:9092, which cannot be reached (Connection ' +
        'error: getaddrinfo ENOTFOUND kafka.invalid): correct advertised.listeners of its brokers, or the network or the ' +
        'names on this host',
    })
  })

  test('is refused in few words, however many its brokers are', async () => {
    const hosts = ['a', 'b', 'c', 'd', 'e']
    const { cluster } = behindBalancer(hosts, new Set(hosts))
    expect(await open(cluster)).toMatchObject({
      message: expect.stringContaining(
        'says that its brokers are at a:9092, b:9092, c:9092, …, which cannot be reached',
      ),
    })
  })

  test.each(['a', 'b'])('is worked with when one of them is, and asks that one: %s is away', async (victim) => {
    const { cluster, asked } = behindBalancer(['a', 'b'], new Set([victim]))
    expect(await open(cluster)).toMatchObject({ message: expect.stringContaining('cleanup.policy is unknown') })
    expect(asked[0]).toBe(BALANCER)
    expect(asked.slice(1)).not.toContain(BALANCER)
  })

  test('cannot be written to while none of those is reached', async () => {
    const away = new Set<string>()
    const { cluster } = behindBalancer(['a', 'b'], away)
    const metrics = { fault: { set: () => {} }, faults: { set: () => {} } }
    const health = new KafkaHealth({ topic: NAMES.telemetry, partitions: 1 }, logger, metrics as never)
    const stop = new AbortController()
    const running = health.run(cluster, () => false, stop.signal)
    const after = async (...hosts: string[]): Promise<string | undefined> => {
      away.clear()
      for (const host of hosts) away.add(host)
      await vi.advanceTimersByTimeAsync(10_000)
      return health.fault?.message
    }
    expect(await after()).toBeUndefined()
    expect(await after('a')).toBeUndefined()
    expect(await after('a', 'b')).toMatch(/^Kafka cannot be written to: Kafka at balancer:9092 answers, but says/)
    expect(await after('b')).toBeUndefined()
    stop.abort()
    await vi.advanceTimersByTimeAsync(1000)
    await running
  })
})
