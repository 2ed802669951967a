import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { TestMember } from '../contract/log-member.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const PARTITIONS = 8
/** A tenth of Kafka's own, so that a group of these members is too large. */
const MOST_BYTES = 100_000
const MEMBERS = 64
const DEADLINE = { timeout: 40_000, interval: 50 }

class LongNamed extends TestMember {
  override readonly endpoint: string

  constructor(i: number, port: number) {
    // What is random does not deflate.
    super(`${i}-${randomBytes(40).toString('hex')}`)
    this.endpoint = `127.0.0.1:${port}`
  }
}

describe.skipIf(kafkaMissing !== undefined)('more members than Kafka can keep', { timeout: 120_000 }, () => {
  let kafka: Kafka
  const server = createServer((_, response) => response.end())

  beforeAll(async () => {
    kafka = await startKafka({ properties: { 'message.max.bytes': String(MOST_BYTES) } })
    await once(server.listen(0, '127.0.0.1'), 'listening')
  }, 180_000)

  afterAll(async () => {
    server.close()
    server.closeAllConnections()
    await kafka?.[Symbol.asyncDispose]()
  })

  test('are told what to do one by one, until it can keep the rest, who go on', async () => {
    const { port } = server.address() as AddressInfo
    await using log = await KafkaLog.open({
      brokers: [kafka.brokers],
      prefix: 'many',
      group: 'many',
      partitions: PARTITIONS,
      logger: pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' }),
      registry: new Registry(),
    })
    const members = Array.from({ length: MEMBERS }, (_, i) => new LongNamed(i, port).join(log))
    const inGroup = () => members.filter(({ outcome }) => outcome === 'in')
    await vi.waitFor(() => {
      expect(inGroup().length).toBeLessThan(members.length)
      const owned = inGroup().flatMap(({ claims }) => [...claims.keys()])
      expect(owned.sort((a, b) => a - b)).toEqual(Array.from({ length: PARTITIONS }, (_, p) => p))
      expect(log.memberIds).toHaveLength(inGroup().length)
    }, DEADLINE)
    expect(inGroup().length).toBeGreaterThan(MEMBERS / 2)
    for (const { outcome } of members.filter((member) => member.outcome !== 'in')) {
      expect(outcome).toMatchObject({
        code: 'LOG_MISMATCH',
        message: expect.stringContaining(`max.message.bytes of __consumer_offsets is ${MOST_BYTES}: raise it`),
      })
    }
    await Promise.all(members.map((member) => member.leave()))
  })
})
