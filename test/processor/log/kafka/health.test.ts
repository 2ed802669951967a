import pino from 'pino'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { KafkaCluster } from '../../../../processor/log/kafka/cluster.ts'
import { KafkaHealth } from '../../../../processor/log/kafka/health.ts'

const TOPIC = { id: 'id', leaders: [1, 1], epochs: [0, 0], replicas: 1 }

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('a topic that brokers do not tell of is a fault of all its partitions, unless only for a moment', async () => {
  let fault = 0
  const metrics = { fault: { set: (value: number) => void (fault = value) }, faults: { set: () => {} } }
  const health = new KafkaHealth({ topic: 't', partitions: 2 }, pino({ level: 'silent' }), metrics as never)
  const topics = new Map([['t', TOPIC]])
  const stop = new AbortController()
  const cluster = { probe: () => Promise.resolve({ topics }) } as unknown as KafkaCluster
  const running = health.run(cluster, () => false, stop.signal)

  topics.delete('t')
  await vi.advanceTimersByTimeAsync(1500)
  expect(health.fault).toBeUndefined()
  topics.set('t', TOPIC)
  await vi.advanceTimersByTimeAsync(1000)
  topics.delete('t')
  await vi.advanceTimersByTimeAsync(1500)
  expect(health.fault).toBeUndefined()
  await vi.advanceTimersByTimeAsync(1500)
  expect(health.fault?.message).toMatch(/brokers tell of no topic t: it was deleted/)
  expect(fault).toBe(1)

  topics.set('t', TOPIC)
  await vi.advanceTimersByTimeAsync(1000)
  expect(health.fault).toBeUndefined()
  expect(fault).toBe(0)
  stop.abort()
  await vi.advanceTimersByTimeAsync(1000)
  await running
})
