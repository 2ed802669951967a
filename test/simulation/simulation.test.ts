import { expect, test } from 'vitest'
import { MUTATIONS } from './mutations.ts'
import { expectInvariants, simulate } from './simulate.ts'

const SCHEDULES = 500
/** Each mutation is found within this many schedules; most are found within ten. */
const SCHEDULES_TO_FIND = 300

const failedSeed = (output: string): string => /^seed (\d+) failed/.exec(output)?.[1] ?? ''

/** Several times what the schedules take on a machine that other tests load. */
const PATIENCE_MS = 180_000

test(
  `a simulated world keeps its invariants in ${SCHEDULES} schedules of crashes, zombies, failures and moves`,
  { timeout: PATIENCE_MS },
  () => expectInvariants(1, SCHEDULES),
)

test.for(Object.keys(MUTATIONS))(
  'a simulated world shows it when %s, and replays it by the seed',
  { timeout: PATIENCE_MS },
  async (mutation) => {
    const found = await simulate('--count', String(SCHEDULES_TO_FIND), '--mutation', mutation)
    expect(found.output).toMatch(/^seed \d+ failed/)
    // The mutation must break the invariant, not the program: the code that it names may have been moved away.
    expect(found.output).not.toMatch(/ is not (defined|a function)/)
    const replay = ['--from', failedSeed(found.output), '--mutation', mutation]
    expect(await simulate(...replay)).toEqual(found)
  },
)
