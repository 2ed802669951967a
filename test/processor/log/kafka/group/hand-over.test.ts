import pino from 'pino'
import { expect, test, vi } from 'vitest'
import { LogCorruptedError, OffsetOutOfRangeError, RetryableError } from '../../../../../processor/contract/errors.ts'
import type { KafkaClaim } from '../../../../../processor/log/kafka/claim/claim.ts'
import { workersOf } from '../../../../../processor/log/kafka/group/leader.ts'
import { decodeAssignment, encodeAssignment } from '../../../../../processor/log/kafka/group/membership.ts'
import { KafkaRoles } from '../../../../../processor/log/kafka/group/roles.ts'
import { topicNames } from '../../../../../processor/log/kafka/topics.ts'
import type { Copying, Member } from '../../../../../processor/log/log.ts'
import { aborted } from '../../../../../processor/runtime/pause.ts'

const candidate = (name: string, active: readonly number[]) => ({ name, active, standby: [] })

test('who works on a partition is known, and an assignment tells what others still work on', () => {
  const workers = workersOf([candidate('a', [0, 1]), candidate('b', [1])])
  expect([...workers]).toEqual([
    [0, ['a']],
    [1, ['a', 'b']],
  ])
  const assignment = { active: [1, 2, 3, 4], standby: [0], moving: [1, 2], heir: [], peers: [] }
  const names = topicNames('test')
  expect(decodeAssignment(names, encodeAssignment(names, assignment))).toEqual(assignment)
})

const closed = new RetryableError('LOG_CLOSED', 'enough is known')

/** Roles whose claims are taken by `take`. */
function rolesOf(
  partitions: number,
  take: (partition: number) => Promise<KafkaClaim>,
  member?: Partial<Member>,
  write: (line: string) => void = () => {},
  onHeirsReady: () => void = () => {},
) {
  const nobody = { active: () => Promise.reject(closed), standby: () => Promise.reject(closed) }
  return new KafkaRoles(
    { instance: 'one', endpoint: '', positions: () => new Map<number, number>(), ...nobody, ...member },
    partitions,
    {
      logger: pino({ level: 'warn' }, { write }),
      take,
      inGroup: () => true,
      confirmed: () => Promise.resolve(),
      onLost: () => {},
      onHeirsReady,
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

test('heirs are heirsReady when all of them are whole at once', async () => {
  const copies = new Map<number, Copying>()
  const standby = (partition: number, signal: AbortSignal, copying: Copying) => {
    copies.set(partition, copying)
    return aborted(signal)
  }
  const onHeirsReady = vi.fn()
  const roles = rolesOf(2, () => Promise.reject(closed), { standby }, undefined, onHeirsReady)
  roles.want([], [0, 1], { heir: [0, 1] })
  await vi.waitFor(() => expect(copies.size).toBe(2))
  copies.get(0)?.whole(true)
  expect(roles.whole).toEqual([0])
  copies.get(0)?.whole(false)
  expect(roles.whole).toEqual([])
  copies.get(1)?.whole(true)
  expect([roles.heirsReady, onHeirsReady.mock.calls.length]).toEqual([false, 0])
  copies.get(0)?.whole(true)
  expect(roles.whole).toEqual([0, 1])
  expect([roles.heirsReady, onHeirsReady.mock.calls.length]).toEqual([true, 1])
  await roles.stop()
})

test('a claim that cannot read the changelog is tried again, and its copy is read meanwhile', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    let tries = 0
    let copies = 0
    const damaged = new LogCorruptedError('the CRC does not fit')
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

test('a claim that cannot be taken is left alone longer and longer, and told of once; what the group has to say ends that', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  try {
    let tries = 0
    const lines: string[] = []
    const unclean = new RetryableError('LOG_UNAVAILABLE', 'a broker has lost records')
    const take = () => (tries++, Promise.reject(unclean))
    const copy = { standby: (_: number, signal: AbortSignal) => aborted(signal) }
    const roles = rolesOf(1, take, copy, (line) => lines.push(line))
    roles.want([0], [])
    await vi.advanceTimersByTimeAsync(40_000)
    // At 0, 0.1, 0.3, 0.7, 1.5, 3.1 and 6.3 s, then each 5 s.
    expect(tries).toBe(13)
    expect(lines).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(40_000)
    // A person may look at the log only now.
    expect(lines).toHaveLength(2)
    const before = tries
    roles.want([0], [])
    await vi.advanceTimersByTimeAsync(0)
    expect(tries).toBe(before + 1)
    await vi.advanceTimersByTimeAsync(100)
    expect(tries).toBe(before + 2)
    await roles.stop()
  } finally {
    vi.useRealTimers()
  }
})

test('a reader that went out of the log ends its role, and a claim that starts there too comes seldom', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  try {
    const taken: number[] = []
    const starts = [7, 9, 9]
    const take = async () => {
      const input = starts[taken.length] ?? 9
      taken.push(input)
      return { start: { input, changelogEnd: 0 }, over: false } as unknown as KafkaClaim
    }
    const strayed = new OffsetOutOfRangeError('telemetry 0: offset 7 is not in the log')
    const roles = rolesOf(1, take, { active: () => Promise.reject(strayed), standby: (_, signal) => aborted(signal) })
    roles.want([0], [])
    await vi.advanceTimersByTimeAsync(0)
    expect(taken).toEqual([7, 9, 9])
    await vi.advanceTimersByTimeAsync(10_000)
    expect(taken).toEqual([7, 9, 9, 9, 9])
    await roles.stop()
  } finally {
    vi.useRealTimers()
  }
})
