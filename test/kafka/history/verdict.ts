/**
 * The consistency models that are claimed, each with what it says here. Not claimed is that answers of two API processes are
 * in any order without `atLeast`, nor that those of a standby are in order with those before.
 */
export const RULES = {
  'consistent prefix':
    'every answer shows each device as it was after some prefix of its partition, not shorter than the answer says, and not longer than what had been sent',
  'read your writes': 'an answer that was asked for at a position, or that tells what a write came to, includes it',
  'monotonic reads':
    'an answer of an owner is not older than what the same API process had answered before it was asked',
  'linearizable writes':
    'a write is in the log once, where its answer says, after all that had been answered before it was asked, and nothing else is there',
  'conditional writes':
    'a write is applied when its condition held at its place in the log, and only then; of one version once',
  'complete lists': 'a list of all devices has each that was there all the time, once, and only what matches',
  'exact counts': 'a count lies between what matched all the time and what matched at some time',
  'ordered changes': 'a stream tells states that were, that match, and in their order',
  convergence: 'at rest all who follow or ask hold what the log comes to',
} as const

export type Rule = keyof typeof RULES

export interface Violation {
  readonly rule: Rule
  readonly what: string
}

/** Kept of each rule. */
const MAX_TOLD = 5

/** What the rules found: how often each was applied, and what broke it. */
export class Verdict {
  readonly judged: Record<Rule, number>
  readonly broken: Partial<Record<Rule, number>> = {}
  /** The first of each rule. */
  readonly violations: Violation[] = []

  constructor() {
    this.judged = Object.fromEntries(Object.keys(RULES).map((rule) => [rule, 0])) as Record<Rule, number>
  }

  /** `what` was found, in values that JSON can show, where it does not hold. */
  judge(rule: Rule, holds: boolean, what: () => object): void {
    this.judged[rule]++
    if (holds) return
    const count = (this.broken[rule] ?? 0) + 1
    this.broken[rule] = count
    if (count <= MAX_TOLD) this.violations.push({ rule, what: JSON.stringify(what()) })
  }
}
