import { randomUUID } from 'node:crypto'
import pino from 'pino'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { freePorts } from '../../simulators/program.ts'
import { kafkaMissing, startKafka } from './kafka.ts'
import { ListeningMember } from './listening-member.ts'

const PARTITIONS = 3
const DEADLINE = { timeout: 20_000, interval: 10 }
/** A host that a check of names takes for another one, and that is this one everywhere. */
const ELSEWHERE = '127.1'

describe.skipIf(kafkaMissing !== undefined)('a member whose endpoint', { timeout: 60_000 }, () => {
  let kafka: Kafka
  let elsewhere: string
  const members: ListeningMember[] = []

  beforeAll(async () => {
    const [port, away] = (await freePorts(2)) as [number, number]
    const properties = { 'advertised.listeners': `PLAINTEXT://127.0.0.1:${port},PROXIED://${ELSEWHERE}:${away}` }
    kafka = await startKafka({ port, proxied: { port: away, advertised: away }, properties })
    elsewhere = `127.0.0.1:${away}`
  }, 180_000)

  afterEach(async () => {
    await Promise.all(members.splice(0).map((member) => member[Symbol.asyncDispose]()))
  })

  afterAll(() => kafka?.[Symbol.asyncDispose]())

  function join(group: string, instance: string, port: number): Promise<ListeningMember> {
    const member = new ListeningMember(instance, port)
    members.push(member)
    return member.joinGroup(kafka.brokers, group, PARTITIONS)
  }

  test('is refused where another starts stays in the group while a third one answers', async () => {
    const group = `refused-${randomUUID()}`
    const [one, two, three] = (await freePorts(3)) as [number, number, number]
    const watching = await join(group, 'a', one)
    const behind = await join(group, 'b', two)
    behind.close()
    await hold(PARTITIONS, watching, behind)
    const ids = behind.memberIds
    const misplaced = await join(group, 'c', three)
    await hold(PARTITIONS, watching, behind, misplaced)
    expect(behind.memberIds).toEqual(ids)
  })

  test('is refused leaves a group whose living have all just started, and wait for it', async () => {
    const group = `refused-${randomUUID()}`
    const [one, two, three] = (await freePorts(3)) as [number, number, number]
    const former = [await join(group, 'a', one), await join(group, 'b', two), await join(group, 'c', three)]
    await hold(PARTITIONS, ...former)
    for (const member of former) {
      member.die()
      member.close()
    }
    // Each answers for the other before it is in the group, so that neither judges the third.
    const again = [new ListeningMember('a', one), new ListeningMember('b', two)]
    members.push(...again)
    await Promise.all(again.map((member) => member.joinGroup(kafka.brokers, group, PARTITIONS)))
    await hold(PARTITIONS, ...again)
  })

  test('is a loopback address is told so, where Kafka is on another host', async () => {
    const [port] = (await freePorts(1)) as [number]
    for (const brokers of [elsewhere, kafka.brokers]) {
      const lines: string[] = []
      const logger = pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) })
      await using member = new ListeningMember('a', port)
      await member.joinGroup(brokers, `refused-${randomUUID()}`, PARTITIONS, logger)
      await hold(PARTITIONS, member)
      const told = lines.filter((line) => line.includes('only processes on this host can reach this processor'))
      expect(told).toHaveLength(brokers === elsewhere ? 1 : 0)
      member.close()
    }
  })
})

/** Each of `members` owns as many as the others, and all together `count`. */
function hold(count: number, ...members: readonly ListeningMember[]): Promise<void> {
  return vi.waitFor(() => {
    const sizes = members.map(({ claims }) => claims.size)
    expect(sizes.reduce((sum, size) => sum + size)).toBe(count)
    expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1)
  }, DEADLINE)
}
