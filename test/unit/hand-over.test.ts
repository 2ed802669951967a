import pino from 'pino'
import { expect, test, vi } from 'vitest'
import { CorruptedError, RetryableError } from '../../processor/contract/errors.ts'
import type { KafkaClaim } from '../../processor/log/kafka-claim.ts'
import { movingTo } from '../../processor/log/kafka-leader.ts'
import { decodeAssignment, encodeAssignment } from '../../processor/log/kafka-membership.ts'
import { KafkaRoles } from '../../processor/log/kafka-roles.ts'
import { topicNames } from '../../processor/log/kafka-topics.ts'
import type { Member } from '../../processor/log/log.ts'
import { aborted } from '../contract/log-member.ts'

const candidate = (instance: string, active: readonly number[]) => ({ instance, active, standby: [] })

test('what another member of the group works on is known to move; what is its own, or nobody’s, is not', () => {
  const candidates = [candidate('a', [0, 1, 2]), candidate('b', [3])]
  expect(movingTo('b', [1, 2, 3, 4], candidates)).toEqual([1, 2])
  expect(movingTo('a', [0], candidates)).toEqual([])
  const assignment = { active: [1, 2, 3, 4], standby: [0], moving: [1, 2], heir: [], peers: [] }
  const names = topicNames('test')
  expect(decodeAssignment(names, encodeAssignment(names, assignment))).toEqual(assignment)
})

const closed = new RetryableError('LOG_CLOSED', 'enough is known')

/** Roles whose claims are taken by `take`. */
function rolesOf(partitions: number, take: (partition: number) => Promise<KafkaClaim>, member?: Partial<Member>) {
  const nobody = { active: () => Promise.reject(closed), standby: () => Promise.reject(closed) }
  return new KafkaRoles(
    { instance: 'one', endpoint: '', positions: () => new Map<number, number>(), ...nobody, ...member },
    partitions,
    {
      logger: pino({ enabled: false }),
      take,
      confirmed: () => Promise.resolve(),
      onLost: () => {},
      onRipe: () => {},
    },
  )
}

test('a partition that moves is claimed after those that nobody works on', async () => {
  const taken: number[] = []
  const roles = rolesOf(3, (partition) => {
    taken.push(partition)
    return Promise.reject(closed)
  })
  roles.want([0, 1, 2], [], { moving: [0] })
  await vi.waitFor(() => expect(taken).toHaveLength(3))
  expect(taken).toEqual([1, 2, 0])
  await roles.stop()
})

test('a claim that cannot read the changelog is tried again, and its copy is read meanwhile', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    let tries = 0
    let copies = 0
    const damaged = new CorruptedError('LOG_CORRUPTED', 'the CRC does not fit')
    const roles = rolesOf(1, () => Promise.reject(tries++ < 3 ? damaged : closed), {
      standby: (_, signal) => {
        copies++
        return aborted(signal)
      },
    })
    const broken = vi.fn()
    roles.broken.catch(broken)
    roles.want([0], [])
    await vi.advanceTimersByTimeAsync(4_000)
    expect([tries, copies]).toEqual([1, 1])
    await vi.advanceTimersByTimeAsync(20_000)
    expect([tries, copies]).toEqual([4, 1])
    await roles.stop()
    expect(broken).not.toHaveBeenCalled()
  } finally {
    vi.useRealTimers()
  }
})
