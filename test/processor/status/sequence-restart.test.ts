import { expect, test } from 'vitest'
import { connectivityRecord } from '../../../processor/contract/record.ts'
import type { Status } from '../../../processor/contract/status.ts'
import type { Headers } from '../../../processor/log/log.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { foldStatus } from '../../status-model.ts'

const T0 = Date.UTC(2026, 10, 24, 10)

/** What is known of a device that said these numbers, without times, each list in a session of its own. */
function counted(sessions: readonly number[][]): Status['counters'] | undefined {
  let status: Status | undefined
  const take = (value: Buffer, headers?: Headers) => {
    const decoded = decodeRecord({ key: 'd', value, timestamp: T0, offset: 0, headers })
    if (decoded.kind === 'rejected') throw new Error(decoded.reason)
    status = foldStatus(status, 'd', decoded)
  }
  // A connection alone does not make a device.
  take(Buffer.from('{"a":1}'))
  for (const [i, numbers] of sessions.entries()) {
    const { value, headers } = connectivityRecord('d', { state: 'online', session: i + 1, reason: 'connected' }, T0)
    take(value as Buffer, headers)
    for (const seq of numbers) take(Buffer.from(JSON.stringify({ seq, values: { seq } })))
  }
  return status?.counters
}

test.each([
  { sessions: [[1], [1]], duplicates: 1 },
  { sessions: [[0, 1], [1]], duplicates: 1 },
  {
    sessions: [
      [0, 1],
      [0, 2],
    ],
    duplicates: 1,
  },
  { sessions: [[1, 2], [1]], duplicates: 0 },
  { sessions: [[1, 2], [2]], duplicates: 1 },
  { sessions: [[1, 2, 1]], duplicates: 1 },
])('a number said again is a repetition, or the count that begins anew: $sessions', ({ sessions, duplicates }) => {
  const messages = 1 + sessions.flat().length - duplicates
  expect(counted(sessions)).toMatchObject({ messages, duplicates })
})
