import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { MAX_PATTERN_LENGTH } from '../../../../processor/contract/search.ts'
import { Pattern } from '../../../../processor/search/language/pattern.ts'

/** Few, so that texts and patterns meet; halves of characters too. */
const CHARACTERS = ['a', 'b', '?', '*', '\\', '\n', 'é', '😀', '😁', '\ud83d', '\ude00']
const text = (maxLength: number) =>
  fc.array(fc.constantFrom(...CHARACTERS), { maxLength }).map((characters) => characters.join(''))
const repeated = fc.tuple(text(3), fc.integer({ min: 0, max: 40 })).map(([what, times]) => what.repeat(times))
const longText = fc.array(fc.oneof(text(4), repeated), { maxLength: 4 }).map((parts) => parts.join(''))
const pattern = fc
  .array(
    fc.oneof(
      { weight: 2, arbitrary: fc.constantFrom('*', '?') },
      { weight: 3, arbitrary: longText.map((literal) => literal.replace(/[\\*?]/g, '\\$&')) },
    ),
    { maxLength: 7 },
  )
  .map((parts) => parts.join(''))

/** Where it fails, the expression tries what a `*` may stand for until it is through. */
function expression(of: string): RegExp {
  const source = of.replace(/\\(.)|(\*)|(\?)|(.)/gsu, (_, escaped: string, any: string, one: string, plain: string) => {
    if (any !== undefined) return '.*?'
    if (one !== undefined) return '.'
    return (escaped ?? plain).replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
  })
  return new RegExp(`^${source}$`, 'su')
}

it('fits what an expression of the same meaning fits', () => {
  const pair = pattern.chain((of) => {
    // What the pattern means is often there, with something around and between.
    const near = fc
      .array(text(2), { minLength: 20, maxLength: 20 })
      .map((fillings) => of.replace(/\\(.)|[*?]/gs, (_, escaped?: string) => escaped ?? (fillings.pop() as string)))
    return fc.tuple(fc.constant(of), fc.oneof(longText, near))
  })
  let fitting = 0
  fc.assert(
    fc.property(pair, ([of, compared]) => {
      const fits = new Pattern(of).fits(compared, { steps: 0 })
      if (fits) fitting++
      expect(fits).toBe(expression(of).test(compared))
    }),
    { numRuns: 3000 },
  )
  expect(fitting).toBeGreaterThan(300)
})

it('takes about as many steps as the text has characters, and tells how many', () => {
  const compared = 'a'.repeat(4096)
  for (const [of, most] of [
    [`*${'a'.repeat(230)}b`, 1],
    [`*${'a'.repeat(230)}b*`, 2],
    [`*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b*`, 2],
    [`*${'a'.repeat(120)}?${'a'.repeat(120)}b*`, MAX_PATTERN_LENGTH / 32 + 3],
    [`*${'a?'.repeat(14)}b*`, MAX_PATTERN_LENGTH / 32 + 3],
  ] as const) {
    for (const long of [compared, `😀${compared.slice(2)}`]) {
      const work = { steps: 0 }
      expect(new Pattern(of).fits(long, work)).toBe(false)
      expect(work.steps).toBeGreaterThan(0)
      expect(work.steps).toBeLessThanOrEqual(most * long.length + MAX_PATTERN_LENGTH)
    }
  }
})
