import type { Freshness, SlicedAnswer } from '../../processor/contract/query.ts'

/** How an answer tells how fresh it is. */
export interface Dated<T> {
  of(answer: T): Freshness | undefined
  as(answer: T, freshness: Freshness): T
}

export function whole<T extends { readonly freshness: Freshness }>(): Dated<T> {
  return { of: ({ freshness }) => freshness, as: (answer, freshness) => ({ ...answer, freshness }) }
}

/** Of one partition: they are equally fresh. */
export const EACH: Dated<SlicedAnswer[]> = {
  of: ([first]) => first?.freshness,
  as: (answers, freshness) => answers.map((answer) => ({ ...answer, freshness })),
}

/** The same answer, of a copy that is not the owner, whatever it takes itself for. */
export function ofStandby<T>(answer: T, dated: Dated<T>): T {
  const freshness = dated.of(answer)
  return freshness?.servedBy === 'owner' ? dated.as(answer, { ...freshness, servedBy: 'standby' }) : answer
}

/** By the input first: changelog positions of what was aborted tell nothing. */
export function isFurther(a: Freshness | undefined, b: Freshness | undefined): boolean {
  if (a === undefined || b === undefined) return a !== undefined
  return a.offset === b.offset ? a.changelog > b.changelog : a.offset > b.offset
}
