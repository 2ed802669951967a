import pino from 'pino'
import { Registry } from 'prom-client'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Fitness } from '../../../../../processor/log/kafka/group/member.ts'
import {
  decodeSubscription,
  encodeSubscription,
  type Subscription,
} from '../../../../../processor/log/kafka/group/membership.ts'
import { KafkaMetrics } from '../../../../../processor/log/kafka/health.ts'
import { topicNames } from '../../../../../processor/log/kafka/topics.ts'
import type { Member } from '../../../../../processor/log/log.ts'

beforeEach(() => vi.useFakeTimers({ toFake: ['performance'] }))
afterEach(() => vi.useRealTimers())

function fitnessOf(member: { unfit: boolean }) {
  const lines: string[] = []
  const metrics = new KafkaMetrics(new Registry())
  const logger = pino({}, { write: (line) => lines.push(line) })
  return {
    fitness: new Fitness(Object.assign(member, { instance: 'one' }) as unknown as Member, metrics, logger),
    lines,
  }
}

test('a member that has become unfit joins for it after 10 s, by which time others on its volume know too', () => {
  const member = { unfit: false }
  const { fitness, lines } = fitnessOf(member)
  expect([fitness.report(), fitness.rejoinDue]).toEqual([false, false])
  member.unfit = true
  expect(fitness.rejoinDue).toBe(false)
  vi.advanceTimersByTime(9_999)
  expect(fitness.rejoinDue).toBe(false)
  vi.advanceTimersByTime(1)
  expect(fitness.rejoinDue).toBe(true)
  expect(fitness.report()).toBe(true)
  vi.advanceTimersByTime(60_000)
  expect(fitness.rejoinDue).toBe(false)
  member.unfit = false
  expect(fitness.rejoinDue).toBe(false)
  vi.advanceTimersByTime(10_000)
  expect([fitness.rejoinDue, fitness.report()]).toEqual([true, false])
  expect(lines).toHaveLength(2)
})

test('when another one has the group join, it tells so at once, and what has passed by then is never joined for', () => {
  const member = { unfit: true }
  const { fitness } = fitnessOf(member)
  expect(fitness.rejoinDue).toBe(false)
  vi.advanceTimersByTime(9_000)
  expect(fitness.report()).toBe(true)
  member.unfit = false
  expect(fitness.rejoinDue).toBe(false)
  vi.advanceTimersByTime(9_000)
  member.unfit = true
  expect(fitness.rejoinDue).toBe(false)
  vi.advanceTimersByTime(9_000)
  member.unfit = false
  expect(fitness.rejoinDue).toBe(false)
})

test('a member says only that it is unfit', () => {
  const names = topicNames('test')
  const told: Subscription = { instance: 'a', endpoint: 'a:1', active: [], standby: [], positions: {}, whole: [] }
  expect(decodeSubscription(encodeSubscription(names, told))?.unfit).toBeUndefined()
  expect(decodeSubscription(encodeSubscription(names, { ...told, unfit: true }))?.unfit).toBe(true)
  expect(encodeSubscription(names, { ...told, unfit: undefined }).toString()).not.toContain('unfit')
})
