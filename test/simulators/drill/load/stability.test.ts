import { describe, expect, test } from 'vitest'
import { AFTERMATH_MS, Stability } from '../../../../simulators/drill/load/readers.ts'
import type { Mark } from '../../../../simulators/drill/report/journal.ts'

const SECOND = 1_000
const KILL: Mark = { at: 20 * SECOND, verb: 'kill', target: 'p1', doneAt: 20 * SECOND }
const START: Mark = { at: 30 * SECOND, verb: 'start', target: 'p1', doneAt: 32 * SECOND }

/** At `now`, of a cluster that was last seen unsteady at `unsteadyAt`. */
function stabilityAt(now: number, { marks = [], unsteadyAt = 0, alone = true }: Partial<Situation>): Stability {
  const recorder = { elapsed: unsteadyAt, marks: [...marks] }
  let why: string | undefined = 'nobody owns partition 0'
  const stability = new Stability({ recorder, processors: ['p1'], alone, unsteady: () => why })
  stability.look()
  recorder.elapsed = now
  why = undefined
  stability.look()
  return stability
}

interface Situation {
  readonly marks: readonly Mark[]
  readonly unsteadyAt: number
  readonly alone: boolean
}

test('it lasts from the last that was amiss, or disturbed, and not while something is being done', () => {
  expect(stabilityAt(60 * SECOND, {}).lasted).toBe(60 * SECOND)
  expect(stabilityAt(60 * SECOND, { marks: [KILL, START] }).lasted).toBe(28 * SECOND)
  expect(stabilityAt(60 * SECOND, { marks: [KILL, START], unsteadyAt: 40 * SECOND }).lasted).toBe(20 * SECOND)
  expect(stabilityAt(60 * SECOND, { marks: [KILL, { at: 30 * SECOND, verb: 'start', target: 'p1' }] }).lasted).toBe(0)
})

describe('nobody stands in', () => {
  const BACK_AT = 40 * SECOND
  test.each<[boolean, string, number, Partial<Situation>]>([
    [false, 'before a processor is away', 19 * SECOND, {}],
    [true, 'while it is', 25 * SECOND, { marks: [KILL], unsteadyAt: 25 * SECOND }],
    [
      true,
      'until all has been steady for a while',
      BACK_AT + AFTERMATH_MS - 1,
      { marks: [KILL, START], unsteadyAt: BACK_AT },
    ],
    [false, 'after that', BACK_AT + AFTERMATH_MS, { marks: [KILL, START], unsteadyAt: BACK_AT }],
    [false, 'where a standby does', 25 * SECOND, { marks: [KILL], unsteadyAt: 25 * SECOND, alone: false }],
    [
      false,
      'for what is no processor',
      25 * SECOND,
      { marks: [{ ...KILL, target: 'api-1' }], unsteadyAt: 25 * SECOND },
    ],
  ])('%s: %s', (orphaned, _, now, situation) => {
    expect(stabilityAt(now, situation).orphaned).toBe(orphaned)
  })
})
