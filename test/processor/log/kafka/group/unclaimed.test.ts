import { expect, test, vi } from 'vitest'
import { memberOf, ONE_OWNED } from './scripted-member.ts'

test('what a member is to own is known once the group has told, and unclaimed until it is taken', async () => {
  const joined = Promise.withResolvers<void>()
  const synced = Promise.withResolvers<void>()
  const requests = {
    joinGroup: async () => {
      await joined.promise
      return { generationId: 1, memberId: 'me', leaderId: 'other', members: [] }
    },
    syncGroup: async () => {
      await synced.promise
      return { memberAssignment: ONE_OWNED }
    },
    heartbeat: () => Promise.resolve(),
    leaveGroup: () => Promise.resolve(),
  }
  // What a claim asks for is not found.
  const found = Promise.withResolvers<never>()
  const { member } = memberOf(requests, [], (lane) => (lane.startsWith('group') ? Promise.resolve() : found.promise))
  const stop = new AbortController()
  const run = member.run(stop.signal)
  joined.resolve()
  await vi.waitFor(() => expect(member.memberId).toBe('me'))
  expect(member.unclaimed).toBeUndefined()
  synced.resolve()
  await vi.waitFor(() => expect(member.unclaimed).toEqual([0]))
  stop.abort()
  found.reject(new Error('the member ends'))
  await run
})
