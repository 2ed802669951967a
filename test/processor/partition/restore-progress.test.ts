import { expect, test } from 'vitest'
import { RestoreProgress } from '../../../processor/partition/restore-progress.ts'

test('the rate is that of the last seconds: what compaction has thinned out goes by faster than the rest', () => {
  let now = 0
  const progress = new RestoreProgress(() => now)
  const go = (seconds: number, perSecond: number) => {
    for (let ms = 0; ms < seconds * 1_000; ms += 100) {
      now += 100
      progress.reached(500_000_000 - (progress.remaining as number) + perSecond / 10, 500_000_000)
    }
  }
  progress.reached(0, 500_000_000)
  go(5, 98_000_000)
  expect(progress.restore).toEqual({ remaining: 10_000_000, recordsPerSecond: 98_000_000, etaSeconds: 1 })
  go(5, 200_000)
  expect(progress.restore).toEqual({ remaining: 9_000_000, recordsPerSecond: 200_000, etaSeconds: 45 })
})

test('what stands still has no rate, and is not said to be done at any time', () => {
  let now = 0
  const progress = new RestoreProgress(() => now)
  progress.reached(0, 1_000)
  for (let i = 1; i <= 10; i++) {
    now += 1_000
    progress.reached(i * 10, 1_000)
  }
  expect(progress.restore).toEqual({ remaining: 900, recordsPerSecond: 10, etaSeconds: 90 })
  now += 60_000
  expect(progress.restore).toEqual({ remaining: 900, recordsPerSecond: 0, etaSeconds: undefined })
})
