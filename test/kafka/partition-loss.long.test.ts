import { randomUUID } from 'node:crypto'
import { connectAsync, type MqttClient } from 'mqtt'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { Ingest } from '../../ingest/ingest.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { accessOf } from '../ingest/fixture.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PATIENCE_MS = 60_000
const PARTITIONS = 6
const SERVER_UNAVAILABLE = 3

/** A device of each partition. */
const DEVICES = Array.from({ length: PARTITIONS }, (_, partition) => {
  for (let n = 1; ; n++) if (partitionOf(`meter-${n}`, PARTITIONS) === partition) return `meter-${n}`
})

describe.skipIf(kafkaMissing !== undefined)('one of three brokers, alone with its partitions, freezes', () => {
  let kafka: Kafka
  let log: KafkaLog
  let ingest: Ingest
  const clients = new Map<string, MqttClient>()

  beforeAll(async () => {
    kafka = await startKafka({ nodes: 3, properties: { 'min.insync.replicas': '1' } })
    const logger = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' })
    log = await KafkaLog.open({
      brokers: kafka.brokers.split(','),
      prefix: `partial-${randomUUID()}`,
      group: 'partial',
      partitions: PARTITIONS,
      replication: 1,
      logger,
      registry: new Registry(),
    })
    const { now } = Date
    const registry = new Registry()
    ingest = await Ingest.open({ log, access: accessOf(), logger, registry, now, random: Math.random })
  }, 180_000)

  afterAll(async () => {
    for (const client of clients.values()) await client.endAsync(true)
    await ingest?.[Symbol.asyncDispose]()
    await log?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
  })

  async function connect(clientId: string): Promise<MqttClient> {
    const url = `mqtt://127.0.0.1:${ingest.port}`
    const client = await connectAsync(url, { clientId, reconnectPeriod: 0 }, false)
    clients.set(clientId, client)
    return client
  }

  async function publish(deviceId: string): Promise<void> {
    await clients.get(deviceId)?.publishAsync(`devices/${deviceId}/telemetry`, '{"n":1}', { qos: 1 })
  }

  test('its devices are refused, all others go on, and it comes back by itself', {
    timeout: 6 * PATIENCE_MS,
  }, async () => {
    await Promise.all(DEVICES.map((device) => connect(device)))
    await Promise.all(DEVICES.map((device) => publish(device)))
    process.kill(kafka.pid as number, 'SIGSTOP')
    const lost: string[] = []
    try {
      const closed = new Map(
        DEVICES.map((device) => {
          const { promise, resolve } = Promise.withResolvers<void>()
          clients.get(device)?.once('close', () => {
            lost.push(device)
            resolve()
          })
          return [device, promise]
        }),
      )
      const answered = new Map(DEVICES.map((device) => [device, 0]))
      const over = new AbortController()
      const publishing = DEVICES.map(async (device) => {
        while (!over.signal.aborted && !lost.includes(device)) {
          await Promise.race([publish(device), closed.get(device)])
          answered.set(device, (answered.get(device) ?? 0) + 1)
        }
      })
      await vi.waitFor(() => expect(lost.length).toBe(PARTITIONS / 3), PATIENCE_MS)
      for (const device of lost) {
        await vi.waitFor(() => expect(connect(device)).rejects.toMatchObject({ code: SERVER_UNAVAILABLE }), PATIENCE_MS)
      }
      const before = new Map(answered)
      const well = DEVICES.filter((device) => !lost.includes(device))
      await vi.waitFor(() => {
        for (const device of well) expect(answered.get(device)).toBeGreaterThan((before.get(device) ?? 0) + 10)
      }, PATIENCE_MS)
      expect(log.fault).toBeUndefined()
      expect(lost.length).toBe(PARTITIONS / 3)
      over.abort()
      await Promise.all(publishing)
    } finally {
      process.kill(kafka.pid as number, 'SIGCONT')
    }
    for (const device of lost) await vi.waitFor(() => connect(device), PATIENCE_MS)
    await Promise.all(DEVICES.map((device) => publish(device)))
  })
})
