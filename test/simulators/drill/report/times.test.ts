import { expect, test } from 'vitest'
import { Ranges } from '../../../../simulators/drill/checks/input-count.ts'
import { type Journal, timesOf } from '../../../../simulators/drill/report/journal.ts'

const span = (ms: number) => ({ count: 1, p50: ms, p95: ms, worst: ms })

const sample = { sent: 100, acknowledged: 100, applied: 100, staleMs: 0, reads: 1, failures: 0 }

test('times are told from the holds, the group and the samples', () => {
  const journal: Journal = {
    startedAt: '2026-11-24T10:00:00.000Z',
    partitions: 2,
    marks: [{ at: 1000, verb: 'kill', target: 'p1' }],
    holds: [
      { at: 10, partition: 0, instance: 'p1', phase: 'running' },
      { at: 10, partition: 1, instance: 'p2', phase: 'running' },
      { at: 1200, partition: 0, instance: 'p2', phase: 'restoring' },
      { at: 1300, partition: 0, instance: 'p2', phase: 'running' },
    ],
    advances: [{ at: 1350, partition: 0, instance: 'p2' }],
    groupStates: [
      { at: 10, stable: true },
      { at: 1100, stable: false },
      { at: 1200, stable: true },
    ],
    samples: [
      { ...sample, at: 500, lag: 5 },
      { ...sample, at: 1250, lag: 90 },
      { ...sample, at: 1500, lag: 15 },
    ],
    failure: undefined,
    loadEndedAt: 2000,
    quietAt: 2100,
  }
  expect(timesOf(journal)).toEqual({
    detection: span(100),
    reassignment: span(200),
    restore: span(100),
    firstCommit: span(350),
    lagNormal: span(500),
  })
})

const AFTER = [11_250, 11_750, 11_900, 11_950]

test.each<[string, readonly (number | undefined)[], number | undefined]>([
  ['it never was more than before', [5, 5, 5], 0],
  ['it was as much only when the fleet came up', [5, 900, 5], 750],
  ['nobody could tell for a while', [5, undefined, 5], 750],
  ['nobody could tell any more', [5, undefined, undefined], undefined],
  ['nobody could tell at first, and then it rose', [5, undefined, 5, 900, 5], 950],
])('the time until the lag is normal: %s', (_, [before, ...after], ms) => {
  const samples = [
    { ...sample, at: 500, lag: 1000 },
    { ...sample, at: 10_500, lag: undefined },
    { ...sample, at: 10_750, lag: before },
    ...after.map((lag, i) => ({ ...sample, at: AFTER[i] as number, lag })),
  ]
  const journal: Journal = {
    startedAt: '2026-11-24T10:00:00.000Z',
    partitions: 1,
    marks: [{ at: 11_000, verb: 'kill', target: 'p1' }],
    holds: [],
    advances: [],
    groupStates: [],
    samples,
    failure: undefined,
    loadEndedAt: 12_000,
    quietAt: 12_100,
  }
  expect(timesOf(journal).lagNormal).toEqual(ms === undefined ? undefined : span(ms))
})

test('ranges know what they miss', () => {
  const ranges = new Ranges()
  expect([5, 7, 6, 6, 1].map((n) => ranges.add(n))).toEqual([true, true, true, false, true])
  expect(ranges.count).toBe(4)
  expect(ranges.missing(1, 8)).toBe(4)
  expect(ranges.missing(5, 7)).toBe(0)
})
