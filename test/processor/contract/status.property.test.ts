import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeStatus, type Status } from '../../../processor/contract/status.ts'
import { encodeStatus } from '../../status-model.ts'
import { anyStatus } from './statuses.ts'

describe('encodeStatus', () => {
  it('gives what JSON.stringify gives, to the byte', () => {
    fc.assert(
      fc.property(anyStatus, (any) => {
        expect(encodeStatus(any).toString()).toBe(JSON.stringify(any))
      }),
      { numRuns: 300 },
    )
  })

  it('gives the same again after decoding', () => {
    fc.assert(
      fc.property(anyStatus, (any) => {
        expect(encodeStatus(decodeStatus(encodeStatus(any)))).toEqual(encodeStatus(any))
      }),
    )
  })

  it('does so for more metric names than it keeps', () => {
    for (let i = 0; i < 20_000; i++) {
      const named = { ...BARE, reported: { [`metric-${i}`]: { value: i, at: BARE.firstSeenAt } } }
      if (encodeStatus(named).toString() !== JSON.stringify(named)) expect.fail(JSON.stringify(named))
    }
  })
})

const BARE: Status = {
  deviceId: 'd',
  rev: 1,
  reported: {},
  connectivity: { state: 'unknown', since: '2026-11-24T10:00:00.000Z', reason: 'no session seen', session: 0 },
  firstSeenAt: '2026-11-24T10:00:00.000Z',
  lastSeenAt: '2026-11-24T10:00:00.000Z',
  counters: { messages: 1, late: 0, duplicates: 0, skewed: 0 },
}
