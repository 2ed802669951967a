import pino from 'pino'
import { Registry } from 'prom-client'
import type { ClaimContext } from '../../../../../processor/log/kafka/claim/claim-context.ts'
import { KafkaMember } from '../../../../../processor/log/kafka/group/member.ts'
import { encodeAssignment } from '../../../../../processor/log/kafka/group/membership.ts'
import { KafkaMetrics } from '../../../../../processor/log/kafka/health.ts'
import { topicNames } from '../../../../../processor/log/kafka/topics.ts'
import type { Member } from '../../../../../processor/log/log.ts'
import { aborted } from '../../../../../processor/runtime/pause.ts'

const names = topicNames('test')

/** What the leader of a group gives to a member that is to have one standby. */
export const ONE_OWNED = encodeAssignment(names, { active: [0], standby: [], moving: [], heir: [], peers: [] })
export const ONE_STANDBY = encodeAssignment(names, { active: [], standby: [0], moving: [], heir: [], peers: [] })

/** A member that owns nothing, in a group whose coordinator answers by `requests`, and is found as `find` resolves. */
export function memberOf(
  requests: object,
  events: string[],
  find: (lane: string) => Promise<void> = () => Promise.resolve(),
): { readonly member: KafkaMember; readonly lines: string[] } {
  const cluster = {
    introduce: () => {},
    ids: { recreated: new Promise(() => {}) },
    coordinator: async (lane: string) => {
      await find(lane)
      return { requests }
    },
    retry: (_ms: number, _signal: unknown, attempt: () => Promise<unknown>) => attempt(),
    forget: () => Promise.resolve(),
    leader: () => Promise.reject(new Error('nobody leads')),
  }
  const lines: string[] = []
  const logger = pino({ level: 'warn' }, { write: (line) => lines.push(line) })
  const identity = { cluster: 'c', telemetry: 't', status: 's', partitions: 1 }
  const claims = { cluster, names, group: 'g', identity, logger } as unknown as ClaimContext
  const port: Member = {
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
  const member = new KafkaMember(claims, port, options, metrics, { suspect: () => {}, onLate: () => {} })
  return { member, lines }
}
