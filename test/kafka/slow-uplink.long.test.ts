import { randomUUID } from 'node:crypto'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { Cluster } from '../../simulators/cluster.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { freePorts } from '../../simulators/program.ts'
import { record } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'
import { SlowUplink } from './slow-uplink.ts'

const BYTES_PER_SECOND = 100_000
const PARTITIONS = 2
const RECORDS = 1600
const VALUE_BYTES = 1000
const DEADLINE = { timeout: 150_000, interval: 200 }

describe.skipIf(kafkaMissing !== undefined)('over a slow uplink to Kafka', { timeout: 200_000 }, () => {
  let uplink: SlowUplink
  let kafka: Kafka

  beforeAll(async () => {
    const [port] = (await freePorts(1)) as [number]
    uplink = await SlowUplink.open(port, BYTES_PER_SECOND)
    kafka = await startKafka({ proxied: { port, advertised: uplink.port } })
  }, 180_000)

  afterAll(async () => {
    await kafka?.[Symbol.asyncDispose]()
    await uplink?.[Symbol.asyncDispose]()
  })

  test.each([
    ['large', RECORDS, VALUE_BYTES],
    // A status has 340 bytes of its own.
    ['small', 4000, 0],
  ])(
    'a processor that is behind comes on, though each of its partitions has 8 s of the link to write: %s messages',
    async (_, count, bytes) => {
      await using cluster = await Cluster.open(kafka.brokers, PARTITIONS)
      await using log = await cluster.log()
      const padding = 'x'.repeat(bytes)
      const devices = Array.from({ length: count }, (__, i) => record(`d${i}`, JSON.stringify({ padding })))
      await log.append('telemetry', devices)
      const processor = await cluster.processor('p1', `127.0.0.1:${uplink.port}`)
      await vi.waitFor(async () => {
        const processed = (await cluster.metrics(processor)).matchAll(
          /^tidemark_processed_records_total\{.*\} (\d+)$/gm,
        )
        expect([...processed].reduce((sum, [, each]) => sum + Number(each), 0)).toBe(count)
      }, DEADLINE)
    },
  )

  test('of more appends than it carries in their time none is lost: it goes on', async () => {
    const prefix = `uplink-${randomUUID()}`
    await using log = await KafkaLog.open({
      brokers: [`127.0.0.1:${uplink.port}`],
      prefix,
      group: prefix,
      partitions: PARTITIONS,
      logger: pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' }),
      registry: new Registry(),
    })
    const padding = 'x'.repeat(VALUE_BYTES)
    const appends = Array.from({ length: RECORDS }, (_, i) => log.append('telemetry', [record(`d${i}`, padding)]))
    const faults: unknown[] = []
    const watching = setInterval(() => log.fault === undefined || faults.push(log.fault), 100)
    try {
      const outcomes = await Promise.allSettled(appends)
      expect(outcomes.filter(({ status }) => status === 'rejected')).toEqual([])
      expect(faults).toEqual([])
    } finally {
      clearInterval(watching)
    }
  })
})
