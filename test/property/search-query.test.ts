import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { matches } from '../../processor/contract/search-match.ts'
import { parseQuery } from '../../processor/contract/search-parser.ts'
import { printQuery, QuerySyntaxError } from '../../processor/contract/search-query.ts'
import { naiveMatches } from './naive-query.ts'
import { query, statusWith } from './queries.ts'

describe('any query', () => {
  it('is printed and read again as the same', () => {
    fc.assert(
      fc.property(query, (asked) => {
        expect(parseQuery(printQuery(asked))).toEqual(asked)
      }),
      { numRuns: 2000 },
    )
  })

  it('matches what a plain reading of its meaning matches', () => {
    fc.assert(
      fc.property(
        query,
        fc.array(statusWith(fc.constantFrom('k1', 'k2', 'a:b')), { minLength: 1, maxLength: 5 }),
        (asked, fleet) => {
          for (const one of fleet) expect(matches(asked, one)).toBe(naiveMatches(asked.root, one))
        },
      ),
      { numRuns: 3000 },
    )
  })

  it('is read, or refused at a place in it, whatever the text', () => {
    const piece = fc.constantFrom(
      ...'()[]{}":*?\\/-+!&|<>=~^ '.split(''),
      'AND',
      'OR',
      'NOT',
      'TO',
      'rev',
      'rev:',
      'x',
      '5',
    )
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 20 }).map((pieces) => pieces.join('')),
        (text) => {
          try {
            const asked = parseQuery(text)
            expect(parseQuery(printQuery(asked))).toEqual(asked)
          } catch (error) {
            expect(error).toBeInstanceOf(QuerySyntaxError)
            const { position } = error as QuerySyntaxError
            expect(position).toBeGreaterThanOrEqual(0)
            expect(position).toBeLessThanOrEqual(text.length)
          }
        },
      ),
      { numRuns: 2000 },
    )
  })
})
