import { createRequire } from 'node:module'
import pino from 'pino'
import { Registry } from 'prom-client'
import { expect, test, vi } from 'vitest'
import type { ClaimContext } from '../../processor/log/kafka-claim-context.ts'
import { encodeAssignment } from '../../processor/log/kafka-membership.ts'
import { KafkaMetrics } from '../../processor/log/kafka-metrics.ts'
import { KafkaSeat } from '../../processor/log/kafka-seat.ts'
import { topicNames } from '../../processor/log/kafka-topics.ts'
import type { Member } from '../../processor/log/log.ts'
import { aborted } from '../../processor/pause.ts'

const { createErrorFromCode } = createRequire(import.meta.url)('kafkajs/src/protocol/error') as {
  createErrorFromCode: (code: number) => Error
}
const UNKNOWN_MEMBER_ID = 25
const REBALANCE_IN_PROGRESS = 27

/**
 * A member with a standby in a group whose next join waits for another member, until this one leaves. From the rebalance on
 * its coordinator is found when `found` resolves.
 */
function seatOf(events: string[], found = Promise.resolve()) {
  const names = topicNames('test')
  const left = Promise.withResolvers<never>()
  left.promise.catch(() => {})
  const memberAssignment = encodeAssignment(names, { active: [], standby: [0], moving: [], heir: [], peers: [] }, true)
  let joins = 0
  let rebalances = false
  const requests = {
    joinGroup: ({ memberId }: { memberId: string }) => {
      events.push(`join as '${memberId}'`)
      if (++joins > 1) return left.promise
      return Promise.resolve({ generationId: 1, memberId: 'me', leaderId: 'other', members: [] })
    },
    syncGroup: () => Promise.resolve({ memberAssignment }),
    heartbeat: () => {
      rebalances = true
      return Promise.reject(createErrorFromCode(REBALANCE_IN_PROGRESS))
    },
    leaveGroup: ({ memberId }: { memberId: string }) => {
      events.push(`leave as '${memberId}'`)
      left.reject(createErrorFromCode(UNKNOWN_MEMBER_ID))
      return Promise.resolve()
    },
  }
  const cluster = {
    introduce: () => {},
    ids: { recreated: new Promise(() => {}) },
    coordinator: async (lane: string) => {
      if (rebalances && lane.startsWith('group')) {
        events.push('coordinator asked for')
        await found
      }
      return { requests }
    },
    persist: (_ms: number, _signal: unknown, attempt: () => Promise<unknown>) => attempt(),
    forget: () => Promise.resolve(),
    leader: () => Promise.reject(new Error('nobody leads')),
  }
  const logger = pino({ level: 'silent' })
  const identity = { cluster: 'c', telemetry: 't', status: 's', partitions: 1 }
  const claims = { cluster, names, group: 'g', identity, logger } as unknown as ClaimContext
  const member: Member = {
    instance: 'one',
    endpoint: '127.0.0.1:1',
    positions: () => new Map<number, number>(),
    active: () => Promise.reject(new Error('nothing is owned here')),
    standby: async (_partition, signal) => {
      events.push('standby begins')
      await aborted(signal)
      events.push('standby ends')
    },
  }
  const options = { standbys: 1, zone: undefined, sessionTimeoutMs: 10_000, balanceMs: 1e6, logger }
  const metrics = new KafkaMetrics(new Registry())
  const seat = new KafkaSeat(claims, member, options, metrics, { suspect: () => {}, onLate: () => {} })
  return seat
}

test('a member that is told to end while a join of its own waits ends its roles, and leaves, at once', async () => {
  const events: string[] = []
  const seat = seatOf(events)
  const stop = new AbortController()
  const run = seat.run(stop.signal)
  await vi.waitFor(() => expect(events).toContain("join as 'me'"))
  stop.abort()
  await run
  const then = ['coordinator asked for', "join as 'me'", 'standby ends', "leave as 'me'"]
  expect(events).toEqual(["join as ''", 'standby begins', ...then])
})

test('one that is told to end while its coordinator is looked for does not join after it has left', async () => {
  const events: string[] = []
  const found = Promise.withResolvers<void>()
  const seat = seatOf(events, found.promise)
  const stop = new AbortController()
  const run = seat.run(stop.signal)
  await vi.waitFor(() => expect(events).toContain('coordinator asked for'))
  stop.abort()
  await vi.waitFor(() => expect(events).toContain("leave as 'me'"))
  found.resolve()
  await run
  expect(events.filter((event) => event.startsWith('join'))).toEqual(["join as ''"])
})
