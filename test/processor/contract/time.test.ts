import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { isoTime, MAX_TIME_MS } from '../../../processor/contract/time.ts'

it('isoTime is what Date gives, in any order of calls', () => {
  const near = fc.nat(200_000).map((ms) => 1_795_514_400_000 + ms)
  fc.assert(
    fc.property(fc.array(fc.oneof(near, fc.nat(MAX_TIME_MS), fc.constantFrom(0, MAX_TIME_MS))), (times) => {
      for (const ms of times) expect(isoTime(ms)).toBe(new Date(ms).toISOString())
    }),
  )
})
