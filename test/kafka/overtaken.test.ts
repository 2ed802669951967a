import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { partitionOf } from '../../processor/contract/partition.ts'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import type { Claim } from '../../processor/log/log.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { TestMember } from '../contract/log-member.ts'
import { record } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'
import { kafkaTool } from './tools.ts'

const PATIENCE = { timeout: 60_000, interval: 20 }
/** To each partition. */
const GIVEN = 10
const KEPT = 6

describe.skipIf(kafkaMissing !== undefined)('a partition that retention overtakes', { timeout: 180_000 }, () => {
  let kafka: Kafka
  let prefix: string
  let lines: string[]
  let log: KafkaLog

  beforeAll(async () => {
    kafka = await startKafka()
    prefix = `overtaken-${randomUUID()}`
    lines = []
    log = await KafkaLog.open({
      brokers: [kafka.brokers],
      prefix,
      group: prefix,
      partitions: 2,
      standbys: 0,
      logger: pino({ level: 'warn' }, { write: (line) => lines.push(line) }),
      registry: new Registry(),
    })
    for (const partition of [0, 1]) {
      const key = ['a', 'b', 'c', 'd'].find((id) => partitionOf(id, 2) === partition) as string
      await log.append(
        'telemetry',
        Array.from({ length: GIVEN }, (_, i) => record(key, `${i}`)),
      )
    }
  }, 180_000)

  afterAll(async () => {
    await log[Symbol.asyncDispose]()
    await kafka[Symbol.asyncDispose]()
  })

  /** Takes the first records of partition 0, as retention does. */
  async function remove(before: number): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-retention-'))
    const file = join(folder, 'offsets.json')
    const partitions = [{ topic: `${prefix}.telemetry`, partition: 0, offset: before }]
    await writeFile(file, JSON.stringify({ partitions, version: 1 }))
    await kafkaTool(kafka.brokers, 'org.apache.kafka.tools.DeleteRecordsCommand', ['--offset-json-file', file])
    await rm(folder, { recursive: true })
  }

  /** Reads one record at a time, and commits it; of partition 0 only the first two until `go`, for which it is `ready`. */
  async function work(claim: Claim, signal: AbortSignal, ready: () => void, go: Promise<void>): Promise<void> {
    const telemetry = { topic: 'telemetry', index: claim.partition } as const
    for await (const { records, next } of log.follow(telemetry, claim.start.input, ONE, signal)) {
      if (claim.partition === 0 && next === 3) {
        ready()
        await go
        // As a reader that has been slow: what it has in memory is over.
        for await (const _ of log.follow(telemetry, next, ONE, signal)) break
      }
      const changelog = records.map(({ key }) => record(key ?? '', `${next}`))
      await claim.commit({ changelog, deadLetters: [], next })
      if (claim.partition === 1 && next === GIVEN) ready()
    }
  }

  test('while it works ends its claim, and holds up no other one', async () => {
    const go = Promise.withResolvers<void>()
    const ready = new Set<number>()
    const active = (claim: Claim, signal: AbortSignal) =>
      work(claim, signal, () => ready.add(claim.partition), go.promise)
    const member = new TestMember('a', { active }).join(log)
    await vi.waitFor(() => expect(ready.size).toBe(2), PATIENCE)
    const other = member.claims.get(1)
    await remove(KEPT)
    go.resolve()
    const told = new RegExp(`${prefix}.telemetry 0: retention removed the offsets 2 to 5 before group ${prefix} had`)
    await vi.waitFor(() => expect(lines.join('')).toMatch(told), PATIENCE)
    expect(member.outcome).toBe('in')
    expect(member.claims.get(0)).toBeUndefined()
    // What is here can be read meanwhile.
    await vi.waitFor(() => expect(member.standbys).toEqual(new Set([0])), PATIENCE)
    expect(member.claims.get(1)).toBe(other)
    await member.leave()
    expect(member.outcome).toBe('left')
  })

  test('goes on, where it is told to, with what is kept', async () => {
    const command = /kafka-consumer-groups (--group \S+ --topic \S+ --reset-offsets --to-earliest --execute)/
    const [, args = ''] = command.exec(lines.join('')) ?? []
    await kafkaTool(kafka.brokers, 'org.apache.kafka.tools.consumer.group.ConsumerGroupCommand', args.split(' '))
    const member = new TestMember('a').join(log)
    await vi.waitFor(() => expect(member.claims.size).toBe(2), PATIENCE)
    expect(member.claims.get(0)?.start).toEqual({ input: KEPT, changelogEnd: expect.any(Number) })
    expect(member.claims.get(1)?.start.input).toBe(GIVEN)
    await member.leave()
  })
})

const ONE = { maxRecords: 1, maxBytes: 1024 }
