import { describe, expect, test } from 'vitest'
import type { ConnectivityReason, ConnectivityState } from '../../../../processor/contract/status.ts'
import { type Farewell, unlike, willIn } from '../../../../simulators/drill/load/visitors.ts'

const AT = '2026-11-24T10:00:00.000Z'

function status(state: ConnectivityState, reason: ConnectivityReason, will?: string) {
  const reported = will === undefined ? {} : { will: { value: will, at: AT } }
  return { connectivity: { state, since: AT, reason, session: 1 }, reported }
}

const ONLINE = status('online', 'connected', 'earlier')
const GONE = status('offline', 'client disconnect')
const LOST = status('offline', 'connection lost', 'last')
const RETURNED = status('online', 'connected', 'last')

describe('a device that came and went', () => {
  test.each<[Farewell, ReturnType<typeof status>]>([
    ['stays', ONLINE],
    ['disconnects', GONE],
    ['is cut off', LOST],
    ['is taken over', RETURNED],
  ])('that %s has its status, and no other', (farewell, due) => {
    expect(unlike({ farewell, left: true }, due)).toBeUndefined()
    for (const other of [ONLINE, GONE, LOST, RETURNED]) {
      if (other !== due) expect(unlike({ farewell, left: true }, other)).toMatch(new RegExp(`^it ${farewell}, `))
    }
    expect(unlike({ farewell, left: true }, undefined)).toBe(`it ${farewell}, and nobody knows it`)
    expect(unlike({ farewell, left: false }, due)).toBe(`it never got to the end, at which it ${farewell}`)
  })

  test.each([
    [{ values: { will: 'last' } }, 'last'],
    [{ values: { will: 1 } }, undefined],
    [{ seq: 1 }, undefined],
    [null, undefined],
    [42, undefined],
  ])('%j is the will %j', (payload, name) => {
    expect(willIn(payload)).toBe(name)
  })
})
