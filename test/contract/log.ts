import { describe } from 'vitest'
import { appendContract } from './log-append.ts'
import { claimContract } from './log-claim.ts'
import { groupContract } from './log-group.ts'
import { type HarnessOptions, type LogHarness, logContext } from './log-harness.ts'

export interface LogContract {
  readonly name: string
  readonly open: (options: HarnessOptions) => Promise<LogHarness>
  /** How long a condition may take to come true. A bound for failures, not a measure. */
  readonly patienceMs?: number
}

/** What every adapter of the Log port keeps to. Offsets may have gaps; only what `next` and `end` say is relied on. */
export function logContract({ name, open, patienceMs = 60_000 }: LogContract): void {
  describe(`log contract: ${name}`, { timeout: patienceMs * 3 }, () => {
    const context = logContext(open, patienceMs)
    appendContract(context)
    claimContract(context)
    groupContract(context)
  })
}
