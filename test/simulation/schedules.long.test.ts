import { test } from 'vitest'
import { expectInvariants } from './simulate.ts'

const SCHEDULES = 10_000
/** As many as the machines of the project have cores. */
const PROCESSES = 2
/** More than ten times what all schedules take on two idle cores: it ends a schedule that hangs. */
const PATIENCE_MS = 1_800_000

test(`a simulated world keeps its invariants in ${SCHEDULES} schedules`, { timeout: PATIENCE_MS }, async () => {
  const count = SCHEDULES / PROCESSES
  await Promise.all(Array.from({ length: PROCESSES }, (_, i) => expectInvariants(1 + i * count, count)))
})
