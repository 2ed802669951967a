import { expect, test, vi } from 'vitest'
import { ConfigurationError } from '../../../../../processor/contract/errors.ts'
import { errorOf } from '../../../../../processor/log/kafka/protocol/broker.ts'
import { memberOf, ONE_STANDBY } from './scripted-member.ts'

const UNKNOWN_SERVER_ERROR = -1
const COORDINATOR_LOAD_IN_PROGRESS = 14
const ILLEGAL_GENERATION = 22
const INCONSISTENT_GROUP_PROTOCOL = 23
const UNKNOWN_MEMBER_ID = 25
const REBALANCE_IN_PROGRESS = 27
const GROUP_AUTHORIZATION_FAILED = 30
/** One that no version of Kafka has. */
const NEVER = 32_000

/** A member in a group of which so many of the first syncs, or heartbeats, are answered by error `code`. */
function failing(code: number, times: { readonly syncs?: number; readonly beats?: number }) {
  const events: string[] = []
  let { syncs = 0, beats = 0 } = times
  const { member, lines } = memberOf(
    {
      joinGroup: ({ memberId }: { memberId: string }) => {
        events.push(`join as '${memberId}'`)
        return Promise.resolve({ generationId: 1, memberId: 'me', leaderId: 'other', members: [] })
      },
      syncGroup: async () => {
        if (syncs-- > 0) throw errorOf(code)
        return { memberAssignment: ONE_STANDBY }
      },
      heartbeat: async () => {
        if (beats-- > 0) throw errorOf(code)
      },
      leaveGroup: () => Promise.resolve(),
    },
    events,
  )
  return { member, lines, events }
}

test.each([
  ['has no name', UNKNOWN_SERVER_ERROR],
  ['is not known here', NEVER],
])('an answer of the group that %s has a member ask again, seldom, and tell of it once', async (_, code) => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'] })
  try {
    const { member, lines, events } = failing(code, { syncs: 3 })
    const stop = new AbortController()
    const run = member.run(stop.signal)
    await vi.advanceTimersByTimeAsync(2900)
    expect(events).toEqual(["join as ''", "join as 'me'", "join as 'me'"])
    await vi.advanceTimersByTimeAsync(200)
    expect(events.slice(3)).toEqual(["join as 'me'", 'standby begins'])
    const told = lines.map((line) => JSON.parse(line).msg).filter((what) => what.startsWith('the group'))
    expect(told).toEqual(['the group fails: see the log of its brokers'])
    stop.abort()
    await run
  } finally {
    vi.useRealTimers()
  }
})

test.each([
  ['asks again', COORDINATOR_LOAD_IN_PROGRESS, ["join as 'me'"]],
  ['joins again', REBALANCE_IN_PROGRESS, ["join as 'me'"]],
  ['joins again', ILLEGAL_GENERATION, ["join as 'me'"]],
  ['ends its roles, and joins as a new member', UNKNOWN_MEMBER_ID, ['standby ends', "join as ''", 'standby begins']],
])('a member %s after error %i of the group', async (_, code, then) => {
  const { member, events } = failing(code, { beats: 1 })
  const stop = new AbortController()
  const run = member.run(stop.signal)
  await vi.waitFor(() => expect(new Set(events.slice(2))).toEqual(new Set(then)))
  stop.abort()
  await run
})

test.each([
  [
    INCONSISTENT_GROUP_PROTOCOL,
    /^group g: .*: the group cannot be used; see the log of its brokers, or set another GROUP$/,
  ],
  [GROUP_AUTHORIZATION_FAILED, /^group g: Not authorized/],
])('a member ends, and tells a person, after error %i of the group', async (code, message) => {
  const { member } = failing(code, { syncs: 1 })
  const run = member.run(new AbortController().signal)
  await expect(run).rejects.toBeInstanceOf(ConfigurationError)
  await expect(run).rejects.toThrow(message)
})
