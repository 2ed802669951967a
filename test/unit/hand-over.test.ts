import pino from 'pino'
import { expect, test, vi } from 'vitest'
import { RetryableError } from '../../processor/contract/errors.ts'
import { movingTo } from '../../processor/log/kafka-leader.ts'
import { decodeAssignment, encodeAssignment } from '../../processor/log/kafka-membership.ts'
import { KafkaRoles } from '../../processor/log/kafka-roles.ts'
import { topicNames } from '../../processor/log/kafka-topics.ts'

const candidate = (instance: string, active: readonly number[]) => ({ instance, active, standby: [] })

test('what another member of the group works on is known to move; what is its own, or nobody’s, is not', () => {
  const candidates = [candidate('a', [0, 1, 2]), candidate('b', [3])]
  expect(movingTo('b', [1, 2, 3, 4], candidates)).toEqual([1, 2])
  expect(movingTo('a', [0], candidates)).toEqual([])
  const assignment = { active: [1, 2, 3, 4], standby: [0], moving: [1, 2], heir: [], peers: [] }
  const names = topicNames('test')
  expect(decodeAssignment(names, encodeAssignment(names, assignment))).toEqual(assignment)
})

test('a partition that moves is claimed after those that nobody works on', async () => {
  const taken: number[] = []
  const closed = new RetryableError('LOG_CLOSED', 'enough is known')
  const member = {
    instance: 'one',
    endpoint: '',
    positions: () => new Map<number, number>(),
    active: () => Promise.reject(closed),
    standby: () => Promise.reject(closed),
  }
  const roles = new KafkaRoles(member, 3, {
    logger: pino({ enabled: false }),
    take: (partition) => {
      taken.push(partition)
      return Promise.reject(closed)
    },
    confirmed: () => Promise.resolve(),
    onLost: () => {},
    onRipe: () => {},
  })
  roles.want([0, 1, 2], [], { moving: [0] })
  await vi.waitFor(() => expect(taken).toHaveLength(3))
  expect(taken).toEqual([1, 2, 0])
  await roles.stop()
})
