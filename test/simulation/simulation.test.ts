import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { MUTATIONS } from './mutations.ts'

const SCHEDULES = 10_000
/** As many as there are cores here. */
const PROCESSES = 2
/** Within so many schedules each mutation is found; most are within ten. */
const SCHEDULES_TO_FIND = 300
/** More than ten times what all schedules take on two cores that have nothing else to do: it ends what hangs. */
const PATIENCE_MS = 1_800_000

interface Outcome {
  readonly code: number
  readonly output: string
}

function simulate(...args: string[]): Promise<Outcome> {
  const program = join(import.meta.dirname, 'run.ts')
  return new Promise((resolve) => {
    // What a step leaves is garbage soon: a larger nursery collects it in passing.
    execFile(process.execPath, ['--max-semi-space-size=64', program, ...args], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), output: stdout + stderr })
    })
  })
}

const failedSeed = (output: string): string => /^seed (\d+) failed/.exec(output)?.[1] ?? ''

describe('a simulated world', { timeout: PATIENCE_MS }, () => {
  test(`keeps its invariants in ${SCHEDULES} schedules of crashes, zombies, failures and moves`, async () => {
    const count = SCHEDULES / PROCESSES
    const runs = Array.from({ length: PROCESSES }, (_, i) => {
      return simulate('--from', String(1 + i * count), '--count', String(count))
    })
    for (const { code, output } of await Promise.all(runs)) {
      expect({ code, output }).toEqual({ code: 0, output: expect.stringMatching(/held/) })
    }
  })

  test.for(Object.keys(MUTATIONS))('shows it when %s, and replays it by the seed', async (mutation) => {
    const found = await simulate('--count', String(SCHEDULES_TO_FIND), '--mutation', mutation)
    expect(found.output).toMatch(/^seed \d+ failed/)
    // It must break what it says, not the program: what it names may have been moved away.
    expect(found.output).not.toMatch(/ is not (defined|a function)/)
    const replay = ['--from', failedSeed(found.output), '--mutation', mutation]
    expect(await simulate(...replay)).toEqual(found)
  })
})
