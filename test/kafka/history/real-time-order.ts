import type { Rule, Verdict } from './verdict.ts'

/** Something that only grows, as it was shown: of what it can have been, the least and the most. */
export interface Shown {
  readonly invoked: number
  readonly completed: number
  readonly least: number
  readonly most: number
  /** It must not be before what others had shown when it was asked; others must not be before it. */
  readonly last: boolean
  readonly first: boolean
}

/** Whatever was asked after another had its answer must not be before that. */
export function judgeOrder(rule: Rule, what: string, shown: readonly Shown[], verdict: Verdict): void {
  const ended = shown.filter(({ first }) => first).toSorted((a, b) => a.completed - b.completed)
  let next = 0
  let furthest: Shown | undefined
  for (const begun of shown.filter(({ last }) => last).toSorted((a, b) => a.invoked - b.invoked)) {
    for (let end = ended[next]; end !== undefined && end.completed < begun.invoked; end = ended[++next]) {
      if (furthest === undefined || end.least > furthest.least) furthest = end
    }
    const before = furthest
    if (before === undefined) continue
    verdict.judge(rule, begun.most >= before.least, () => ({ what, before, after: begun }))
  }
}
