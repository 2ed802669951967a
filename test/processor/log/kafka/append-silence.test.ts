import { stat } from 'node:fs'
import pino from 'pino'
import { Counter } from 'prom-client'
import { expect, onTestFinished, test, vi } from 'vitest'
import { KafkaAppender } from '../../../../processor/log/kafka/appender.ts'
import type { KafkaCluster } from '../../../../processor/log/kafka/cluster.ts'
import { KafkaHealth } from '../../../../processor/log/kafka/health.ts'
import { WireWriter } from '../../../../processor/log/kafka/protocol/wire.ts'

const TOPIC = 't'
const TIMEOUT_MS = 2_000
const STILL_MS = 3_000
/** How often it is looked for appends that wait for too long. */
const LOOK_MS = 100

/** What a broker says that took the batch at offset 0. */
function taken(): Buffer {
  const writer = new WireWriter().int32(1).string(TOPIC).int32(1)
  return writer.int32(0).int16(0).int64(0).int64(0).int64(0).finish()
}

/** An append that Kafka was asked for; `answer` has it answered. */
async function asking(): Promise<{ append: Promise<void>; answer: () => void; health: KafkaHealth }> {
  const asked = Promise.withResolvers<void>()
  const answer = Promise.withResolvers<Buffer>()
  const send = (): Promise<Buffer> => {
    asked.resolve()
    return answer.promise
  }
  const cluster = {
    metadata: async () => ({ topics: new Map([[TOPIC, { leaders: [0] }]]) }),
    retry: (_ms: number, _signal: AbortSignal, work: () => unknown) => work(),
    anyConnection: async () => ({
      requests: { initProducerId: async () => ({ producerId: '1', producerEpoch: 0 }) },
    }),
    connection: async () => ({ send }),
    refresh: async () => undefined,
  } as unknown as KafkaCluster
  const logger = pino({ enabled: false })
  const metrics = { fault: { set: () => {} }, faults: { set: () => {} } }
  const health = new KafkaHealth({ topic: TOPIC, partitions: 1 }, logger, metrics as never)
  const records = new Counter({ name: 'records', help: 'records', labelNames: ['topic'], registers: [] })
  const appender = new KafkaAppender(cluster, health, { maxQueuedBytes: 1e6, timeoutMs: TIMEOUT_MS, logger, records })
  onTestFinished(() => appender.close())
  const append = appender.append(TOPIC, 1, [{ key: 'a', value: Buffer.from('1'), timestamp: 1 }])
  append.catch(() => {})
  await asked.promise
  return { append, answer: () => answer.resolve(taken()), health }
}

function standStill(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STILL_MS)
}

test('an append that was answered while this process stood still is not given up', async () => {
  const { append, answer, health } = await asking()
  // From within what is read, so that timers come before what is there next.
  stat('.', () => {
    stat('.', answer)
    standStill()
  })
  await append
  expect(health.faultAt(TOPIC, 0)).toBeUndefined()
})

test('nor is one when the look for those that wait for too long had begun just before', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  onTestFinished(() => void vi.useRealTimers())
  const { append, answer, health } = await asking()
  stat('.', () => {
    vi.advanceTimersByTime(LOOK_MS)
    stat('.', answer)
    standStill()
  })
  await append
  expect(health.faultAt(TOPIC, 0)).toBeUndefined()
})
