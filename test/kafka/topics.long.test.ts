import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { KafkaLog, type KafkaLogOptions } from '../../processor/log/kafka/kafka-log.ts'
import type { Claim } from '../../processor/log/log.ts'
import { openLog } from '../../processor/log/open.ts'
import { readEnvironment } from '../../processor/runtime/environment.ts'
import { aborted } from '../../processor/runtime/pause.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { read, TestMember } from '../contract/log-member.ts'
import { numbered, record, text } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'
import { kafkaTool } from './tools.ts'

const PATIENCE_MS = 60_000

describe.skipIf(kafkaMissing !== undefined)('topics on Kafka', { timeout: PATIENCE_MS * 3 }, () => {
  let kafka: Kafka

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterAll(() => kafka[Symbol.asyncDispose]())

  function open(prefix: string, options: Partial<KafkaLogOptions> = {}): Promise<KafkaLog> {
    return KafkaLog.open({
      brokers: [kafka.brokers],
      prefix,
      group: prefix,
      partitions: 2,
      standbys: 0,
      logger: pino({ level: 'silent' }),
      registry: new Registry(),
      ...options,
    })
  }

  const tool = (name: string, args: readonly string[], input = '') => kafkaTool(kafka.brokers, name, args, input)
  const topicTool = (args: readonly string[]) => tool('org.apache.kafka.tools.TopicCommand', args)

  test('are created once, and keep their identity', async () => {
    const prefix = `topics-${randomUUID()}`
    const logs = await Promise.all([open(prefix), open(prefix)])
    expect(logs[0]?.identity).toEqual(logs[1]?.identity)
    for (const log of logs) await log[Symbol.asyncDispose]()
    await topicTool(['--delete', '--topic', `${prefix}.status`])
    await vi.waitFor(async () => {
      await using again = await open(prefix)
      expect(again.identity.status).not.toBe(logs[0]?.identity.status)
      expect(again.identity.telemetry).toBe(logs[0]?.identity.telemetry)
    }, PATIENCE_MS)
  })

  test.each([
    ['says that it has other partitions than it was told to make', '3', true],
    ['says nothing where it was told as many', '2', false],
    ['says nothing where it was told nothing', '', false],
  ])('that are there: who opens them %s', async (_, PARTITIONS, isTold) => {
    const prefix = `there-${randomUUID()}`
    await (await open(prefix))[Symbol.asyncDispose]()
    const lines: string[] = []
    const logger = pino({ level: 'warn' }, { write: (line) => lines.push(line) })
    const given = { KAFKA_BROKERS: kafka.brokers, TOPIC_PREFIX: prefix, GROUP: prefix, PARTITIONS }
    await using log = await openLog(readEnvironment(given), logger, new Registry())
    expect(log.identity.partitions).toBe(2)
    expect(lines.join('').includes('PARTITIONS=3, and the topics have 2')).toBe(isTold)
  })

  test('tell how long they keep tombstones', async () => {
    const prefix = `tombstones-${randomUUID()}`
    const anyTime = 'message.timestamp.after.max.ms=9223372036854775807'
    const settings = ['cleanup.policy=compact', 'max.message.bytes=2097152', anyTime, 'delete.retention.ms=123456']
    const config = settings.flatMap((setting) => ['--config', setting])
    await topicTool(['--create', '--topic', `${prefix}.status`, '--partitions', '2', ...config])
    await using log = await open(prefix)
    expect(log.deleteRetentionMs).toBe(123456)
  })

  test('that do not fit are refused by the name of the setting', async () => {
    const prefix = `wrong-${randomUUID()}`
    await topicTool(['--create', '--topic', `${prefix}.status`, '--partitions', '2'])
    await expect(open(prefix)).rejects.toMatchObject({
      code: 'LOG_MISMATCH',
      message: expect.stringMatching(/\.status: cleanup\.policy is delete, must be compact/),
    })
    const other = `uneven-${randomUUID()}`
    await using _ = await open(other)
    await topicTool(['--alter', '--topic', `${other}.telemetry`, '--partitions', '3'])
    await expect(open(other)).rejects.toMatchObject({
      code: 'LOG_MISMATCH',
      message: expect.stringMatching(/telemetry has 3, topic .*\.status has 2, .* use another TOPIC_PREFIX/),
    })
    // As Kafka 4 makes them.
    const strict = `strict-${randomUUID()}`
    const roomy = ['cleanup.policy=compact', 'max.message.bytes=2097152'].flatMap((setting) => ['--config', setting])
    await topicTool(['--create', '--topic', `${strict}.status`, '--partitions', '2', ...roomy])
    await expect(open(strict)).rejects.toMatchObject({
      code: 'LOG_MISMATCH',
      message: expect.stringMatching(
        /\.status: message\.timestamp\.after\.max\.ms is 3600000, must be 9223372036854775807/,
      ),
    })
    const tooMany = { replication: 3, brokersWithinMs: 100 }
    await expect(open(`factor-${randomUUID()}`, tooMany)).rejects.toMatchObject({
      code: 'LOG_MISMATCH',
      message: expect.stringMatching(/\.telemetry cannot be created: 1 broker is live.*KAFKA_REPLICATION to at most 1/),
    })
    // Kafka takes the topic, and would then refuse every record.
    await expect(open(`in-sync-${randomUUID()}`, { minInSyncReplicas: 2 })).rejects.toMatchObject({
      code: 'LOG_MISMATCH',
      message: expect.stringMatching(/min\.insync\.replicas is 2, must be at most 1/),
    })
  })

  test.each(['none', 'gzip', 'snappy', 'lz4', 'zstd'])(
    'written by the Java producer with %s are read',
    async (codec) => {
      const prefix = `codec-${codec}-${randomUUID()}`
      await using log = await open(prefix, { partitions: 1 })
      const lines = Array.from(
        { length: 3000 },
        (_, i) => `device-${i % 50}:{"temperature":${i},"note":"repeated text"}`,
      )
      const properties = ['parse.key=true', 'key.separator=:'].flatMap((property) => ['--reader-property', property])
      await tool(
        'org.apache.kafka.tools.ConsoleProducer',
        ['--topic', `${prefix}.telemetry`, `--compression-codec=${codec}`, '--batch-size', '16384', ...properties],
        `${lines.join('\n')}\n`,
      )
      const got = await read(log, 'telemetry', 0, 0, (records) => records.length >= lines.length)
      expect(got.map((r) => `${r.key}:${text(r)}`)).toEqual(lines)
    },
  )

  test('are read by the Java consumer, and the group by its tool', async () => {
    const prefix = `foreign-${randomUUID()}`
    await using log = await open(prefix, { partitions: 1 })
    const member = new TestMember('a', {
      async active(claim, signal) {
        await claim.commit({ changelog: [record('device-1', '{"rev":1}')], deadLetters: [], next: 3 })
        await aborted(signal)
      },
    }).join(log)
    await read(log, 'status', 0, 0, (records) => records.length > 0)
    const consumed = await tool('org.apache.kafka.tools.consumer.ConsoleConsumer', [
      '--topic',
      `${prefix}.status`,
      '--from-beginning',
      '--max-messages',
      '1',
      '--timeout-ms',
      '20000',
      '--isolation-level',
      'read_committed',
      '--formatter-property',
      'print.key=true',
    ])
    expect(consumed).toContain('device-1\t{"rev":1}')
    // Each partition of a transaction has a marker of its own: that of the offsets may come after that of the changelog.
    await vi.waitFor(async () => {
      const args = ['--describe', '--group', prefix]
      const described = await tool('org.apache.kafka.tools.consumer.group.ConsumerGroupCommand', args)
      expect(described).toMatch(new RegExp(`${prefix}\\.telemetry\\s+0\\s+3`))
    }, PATIENCE_MS)
    await member.leave()
  })

  test('tell what retention has removed', async () => {
    const prefix = `retention-${randomUUID()}`
    await using log = await open(prefix, { partitions: 1 })
    await log.append('telemetry', numbered(0, 10))
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-retention-'))
    const file = join(folder, 'offsets.json')
    const partitions = [{ topic: `${prefix}.telemetry`, partition: 0, offset: 5 }]
    await writeFile(file, JSON.stringify({ partitions, version: 1 }))
    await tool('org.apache.kafka.tools.DeleteRecordsCommand', ['--offset-json-file', file])
    await rm(folder, { recursive: true })
    expect(await log.bounds({ topic: 'telemetry', index: 0 })).toEqual({ start: 5, end: 10 })
    await expect(read(log, 'telemetry', 0, 4, 10)).rejects.toMatchObject({ code: 'OFFSET_OUT_OF_RANGE' })
    expect((await read(log, 'telemetry', 0, 5, 10)).map(text)).toEqual(numbered(5, 5).map(text))
    const member = new TestMember('a').join(log)
    await vi.waitFor(() => expect(member.claims.get(0)?.start).toEqual({ input: 5, changelogEnd: 0 }), PATIENCE_MS)
    await member.leave()
  })

  test('a changelog of another writer, without committed offsets, is not counted on', async () => {
    const prefix = `offsets-${randomUUID()}`
    await using log = await open(prefix, { partitions: 1 })
    const args = ['--topic', `${prefix}.status`, '--property', 'parse.key=true']
    await tool('org.apache.kafka.tools.ConsoleProducer', args, 'device-1\tx\n')
    const member = new TestMember('a').join(log)
    await vi.waitFor(() => expect(member.outcome).toMatchObject({ code: 'LOG_MISMATCH' }), PATIENCE_MS)
    expect(String(member.outcome)).toMatch(/has no committed offset/)
  })

  test.each(['telemetry', 'status'] as const)('a %s that was created anew is not continued from', async (topic) => {
    const prefix = `anew-${randomUUID()}`
    const before = await open(prefix, { partitions: 1 })
    const first = new TestMember('a', { active: commitOnce }).join(before)
    await read(before, 'status', 0, 0, (records) => records.length > 0)
    await first.leave()
    await before[Symbol.asyncDispose]()
    await topicTool(['--delete', '--topic', `${prefix}.${topic}`])
    await using after = await vi.waitFor(async () => {
      const log = await open(prefix, { partitions: 1 })
      if (log.identity[topic] !== before.identity[topic]) return log
      await log[Symbol.asyncDispose]()
      throw new Error('the topic is still there')
    }, PATIENCE_MS)
    const second = new TestMember('b').join(after)
    await vi.waitFor(() => expect(second.outcome).toMatchObject({ code: 'LOG_MISMATCH' }), PATIENCE_MS)
    // With the input topic Kafka has also forgotten what was committed for it.
    const reason = topic === 'status' ? /\.status is not the one .* was created anew/ : /has no committed offset for/
    expect(String(second.outcome)).toMatch(reason)
  })
})

async function commitOnce(claim: Claim, signal: AbortSignal): Promise<void> {
  await claim.commit({ changelog: [record('device-1', 'x')], deadLetters: [], next: 1 })
  await aborted(signal)
}
