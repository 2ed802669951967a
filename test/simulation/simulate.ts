import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { expect } from 'vitest'

interface Outcome {
  readonly code: number
  readonly output: string
}

/** Runs simulated schedules in a process of their own. */
export function simulate(...args: string[]): Promise<Outcome> {
  const program = join(import.meta.dirname, 'run.ts')
  return new Promise((resolve) => {
    // Each step leaves garbage behind: a larger nursery collects it in passing.
    execFile(process.execPath, ['--max-semi-space-size=64', program, ...args], (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), output: stdout + stderr })
    })
  })
}

/** Fails, with the seed, unless every invariant holds in `count` schedules that begin with seed `from`. */
export async function expectInvariants(from: number, count: number): Promise<void> {
  const { code, output } = await simulate('--from', String(from), '--count', String(count))
  expect({ code, output }).toEqual({ code: 0, output: expect.stringMatching(/held/) })
}
