import { randomUUID } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, truncate } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { LENGTH_AT } from '../../processor/log/kafka/protocol/record-batch.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { read, TestMember } from '../contract/log-member.ts'
import { numbered, text } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'
import { kafkaTool } from './tools.ts'

const PATIENCE = { timeout: 60_000, interval: 20 }
/** Appended one by one, so that each is a batch. */
const GIVEN = 10
const KEPT = 5
const ALL = { maxRecords: 1000, maxBytes: 1 << 20 }

describe.skipIf(kafkaMissing !== undefined)('telemetry that lost what was processed', { timeout: 180_000 }, () => {
  let kafka: Kafka
  let data: string
  let log: KafkaLog
  const prefix = `truncated-${randomUUID()}`
  const lines: string[] = []
  const processed: string[] = []

  beforeAll(async () => {
    data = await mkdtemp(join(tmpdir(), 'tidemark-truncated-'))
    kafka = await startKafka({ data })
    log = await open()
  }, 180_000)

  afterAll(async () => {
    await log?.[Symbol.asyncDispose]()
    await kafka?.[Symbol.asyncDispose]()
    await rm(data, { recursive: true, force: true })
  })

  function open(): Promise<KafkaLog> {
    const logger = pino({ level: 'warn' }, { write: (line) => lines.push(line) })
    const options = { brokers: [kafka.brokers], prefix, group: prefix, partitions: 1, standbys: 0, logger }
    return KafkaLog.open({ ...options, registry: new Registry() })
  }

  function take(): TestMember {
    return new TestMember('a', {
      async active(claim, signal) {
        const telemetry = { topic: 'telemetry', index: 0 } as const
        for await (const { records, next } of log.follow(telemetry, claim.start.input, ALL, signal)) {
          await claim.commit({ changelog: records, deadLetters: [], next })
          processed.push(...records.map(text))
        }
      },
    }).join(log)
  }

  /** As a loss of power does with what was not on the disk yet, or a replica that was behind and leads nevertheless. */
  async function loseTail(): Promise<void> {
    await log[Symbol.asyncDispose]()
    await kafka.kill()
    const folder = join(data, 'node-1', 'log')
    const partition = join(folder, `${prefix}.telemetry-0`)
    const segment = join(partition, '00000000000000000000.log')
    const bytes = await readFile(segment)
    let at = 0
    for (let batch = 0; batch < KEPT; batch++) at += LENGTH_AT + 4 + bytes.readInt32BE(at + LENGTH_AT)
    await truncate(segment, at)
    // They tell what was there, and are made anew.
    for (const file of await readdir(partition)) if (/index$|\.snapshot$/.test(file)) await rm(join(partition, file))
    for (const file of await readdir(folder)) if (file.endsWith('checkpoint')) await rm(join(folder, file))
    await kafka.start()
    log = await open()
  }

  test('is not read on from, also when as much was appended since', async () => {
    for (const record of numbered(0, GIVEN)) await log.append('telemetry', [record])
    const before = take()
    await vi.waitFor(() => expect(processed).toHaveLength(GIVEN), PATIENCE)
    await before.leave()
    const reader = await open()
    let got = 0
    const reading = read(reader, 'telemetry', 0, 0, ({ length }) => {
      got = length
      return false
    })
    const gone = new RegExp(`offset ${GIVEN} was read to, but what stood at ${KEPT} and after it is gone`)
    const strayed = expect(reading).rejects.toMatchObject({
      code: 'OFFSET_OUT_OF_RANGE',
      message: expect.stringMatching(gone),
    })
    await vi.waitFor(() => expect(got).toBe(GIVEN), PATIENCE)
    await loseTail()
    await strayed
    await reader[Symbol.asyncDispose]()
    expect(await log.bounds({ topic: 'telemetry', index: 0 })).toEqual({ start: 0, end: KEPT })
    await log.append('telemetry', numbered(100, GIVEN))
    const member = take()
    const told = new RegExp(
      `${prefix}.telemetry 0: what stands at ${KEPT} and after it is not what group ${prefix} has`,
    )
    await vi.waitFor(() => expect(lines.join('')).toMatch(told), PATIENCE)
    expect(member.outcome).toBe('in')
    expect(processed).toHaveLength(GIVEN)
    await member.leave()
  })

  test('goes on, where it is told to, with all that was appended since', async () => {
    const command = /kafka-consumer-groups (--group \S+ --topic \S+ --reset-offsets --to-offset \d+ --execute)/
    const [, args = ''] = command.exec(lines.join('')) ?? []
    await kafkaTool(kafka.brokers, 'org.apache.kafka.tools.consumer.group.ConsumerGroupCommand', args.split(' '))
    processed.length = 0
    const member = take()
    await vi.waitFor(() => expect(processed).toEqual(numbered(100, GIVEN).map(text)), PATIENCE)
    await member.leave()
  })
})
