import { expect, test, vi } from 'vitest'
import { errorOf } from '../../../../../processor/log/kafka/protocol/broker.ts'
import { memberOf, ONE_STANDBY } from './scripted-member.ts'

const UNKNOWN_MEMBER_ID = 25
const REBALANCE_IN_PROGRESS = 27

/**
 * A member with a standby in a group whose next join waits for another member, until this one leaves. From the rebalance on
 * its coordinator is found when `found` resolves.
 */
function leaving(events: string[], found = Promise.resolve()) {
  const left = Promise.withResolvers<never>()
  left.promise.catch(() => {})
  let joins = 0
  let rebalances = false
  const requests = {
    joinGroup: ({ memberId }: { memberId: string }) => {
      events.push(`join as '${memberId}'`)
      if (++joins > 1) return left.promise
      return Promise.resolve({ generationId: 1, memberId: 'me', leaderId: 'other', members: [] })
    },
    syncGroup: () => Promise.resolve({ memberAssignment: ONE_STANDBY }),
    heartbeat: () => {
      rebalances = true
      return Promise.reject(errorOf(REBALANCE_IN_PROGRESS))
    },
    leaveGroup: ({ memberId }: { memberId: string }) => {
      events.push(`leave as '${memberId}'`)
      left.reject(errorOf(UNKNOWN_MEMBER_ID))
      return Promise.resolve()
    },
  }
  return memberOf(requests, events, async (lane) => {
    if (!rebalances || !lane.startsWith('group')) return
    events.push('coordinator asked for')
    await found
  }).member
}

test('a member that is told to end while a join of its own waits ends its roles, and leaves, at once', async () => {
  const events: string[] = []
  const member = leaving(events)
  const stop = new AbortController()
  const run = member.run(stop.signal)
  await vi.waitFor(() => expect(events).toContain("join as 'me'"))
  stop.abort()
  await run
  const then = ['coordinator asked for', "join as 'me'", 'standby ends', "leave as 'me'"]
  expect(events).toEqual(["join as ''", 'standby begins', ...then])
})

test('one that is told to end while its coordinator is looked for does not join after it has left', async () => {
  const events: string[] = []
  const found = Promise.withResolvers<void>()
  const member = leaving(events, found.promise)
  const stop = new AbortController()
  const run = member.run(stop.signal)
  await vi.waitFor(() => expect(events).toContain('coordinator asked for'))
  stop.abort()
  await vi.waitFor(() => expect(events).toContain("leave as 'me'"))
  found.resolve()
  await run
  expect(events.filter((event) => event.startsWith('join'))).toEqual(["join as ''"])
})
