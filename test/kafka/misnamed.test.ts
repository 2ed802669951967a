import { randomUUID } from 'node:crypto'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import type { Claim } from '../../processor/log/log.ts'
import { aborted } from '../../processor/runtime/pause.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { TestMember } from '../contract/log-member.ts'
import { numbered, record } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'
import { kafkaTool } from './tools.ts'

const PARTITIONS = 2
const PATIENCE = { timeout: 30_000, interval: 20 }

/** What an operator does who mistypes TOPIC_PREFIX or GROUP of one processor, or gives two clusters the same GROUP. */
describe.skipIf(kafkaMissing !== undefined)('a processor with a wrong name', { timeout: 120_000 }, () => {
  let kafka: Kafka
  /** By instance and partition. */
  const committed = new Map<string, number>()
  const opened: { log: KafkaLog; member: TestMember }[] = []

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterEach(async () => {
    committed.clear()
    for (const { log, member } of opened.splice(0)) {
      await member.leave()
      await log[Symbol.asyncDispose]()
    }
  })

  afterAll(() => kafka?.[Symbol.asyncDispose]())

  async function begin(prefix: string, group: string, instance: string): Promise<TestMember> {
    const logger = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' })
    const options = { brokers: [kafka.brokers], prefix, group, partitions: PARTITIONS, standbys: 0, logger }
    const log = await KafkaLog.open({ ...options, registry: new Registry() })
    await log.append('telemetry', numbered(0, 20))
    const active = async (claim: Claim, signal: AbortSignal) => {
      const next = claim.start.input + 1
      await claim.commit({ changelog: [record('key', `${next}`)], deadLetters: [], next })
      committed.set(`${instance} ${claim.partition}`, next)
      await aborted(signal)
    }
    const member = new TestMember(instance, { active }).join(log)
    opened.push({ log, member })
    return member
  }

  async function holdsAll({ instance, claims }: TestMember): Promise<void> {
    await vi.waitFor(() => {
      expect(claims.size).toBe(PARTITIONS)
      expect([...claims.keys()].every((partition) => committed.has(`${instance} ${partition}`))).toBe(true)
    }, PATIENCE)
  }

  test('does not take partitions of a group that works on other topics', async () => {
    const [one, other, group] = [randomUUID(), randomUUID(), randomUUID()]
    const veteran = await begin(one, group, 'a')
    await holdsAll(veteran)
    const stranger = await begin(other, group, 'b')
    await refused(stranger, new RegExp(`GROUP=${group}.*${other}\\.telemetry.*${one}\\.telemetry`))
    await holdsAll(veteran)
    expect(veteran.events).toEqual(expect.not.arrayContaining(['end active 0', 'end active 1']))
    expect(veteran.outcome).toBe('in')
  })

  test('does not work on what another group works on', async () => {
    const [prefix, group, other] = [randomUUID(), randomUUID(), randomUUID()]
    const veteran = await begin(prefix, group, 'a')
    await holdsAll(veteran)
    const stranger = await begin(prefix, other, 'b')
    await refused(stranger, new RegExp(`group ${group} .*GROUP=${group}`))
    expect(stranger.events).toEqual([])
    expect(veteran.outcome).toBe('in')
  })

  test('goes on where another group ended once that is deleted', async () => {
    const [prefix, group, other] = [randomUUID(), randomUUID(), randomUUID()]
    const veteran = await begin(prefix, group, 'a')
    await holdsAll(veteran)
    await veteran.leave()
    const ends = [0, 1].map((partition) => committed.get(`a ${partition}`))
    const remove = ['--delete', '--group', group]
    await kafkaTool(kafka.brokers, 'org.apache.kafka.tools.consumer.group.ConsumerGroupCommand', remove)
    const heir = await begin(prefix, other, 'b')
    await holdsAll(heir)
    expect([0, 1].map((partition) => heir.claims.get(partition)?.start.input)).toEqual(ends)
  })
})

async function refused(member: TestMember, why: RegExp): Promise<void> {
  await vi.waitFor(() => expect(member.outcome).toMatchObject({ code: 'LOG_MISMATCH' }), PATIENCE)
  expect((member.outcome as Error).message).toMatch(why)
}
