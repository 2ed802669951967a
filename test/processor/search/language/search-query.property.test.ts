import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Order, parseOrder } from '../../../../processor/contract/order.ts'
import {
  MAX_PATTERN_LENGTH,
  MAX_QUERY_CLAUSES,
  MAX_QUERY_DEPTH,
  MAX_QUERY_LENGTH,
  MAX_WILDCARDS,
  printQuery,
  QuerySyntaxError,
} from '../../../../processor/contract/search.ts'
import { Matcher } from '../../../../processor/search/language/match.ts'
import { parseQuery } from '../../../../processor/search/language/parser.ts'
import {
  decodeSearchQuestion,
  decodeSummaryQuestion,
  encodeSearchQuestion,
  encodeSummaryQuestion,
} from '../../../../processor/search/wire.ts'
import { naiveMatches } from './naive-query.ts'
import { query, statusWith } from './queries.ts'

describe('any query', () => {
  it('is printed and read again as the same', () => {
    fc.assert(
      fc.property(query, (asked) => {
        expect(parseQuery(printQuery(asked)).root).toEqual(asked.root)
      }),
      { numRuns: 2000 },
    )
  })

  it('crosses to a processor as what it is, up to the limits of queries', () => {
    const text = fc.oneof({ weight: 3, arbitrary: atLimits }, query.map(printQuery))
    fc.assert(
      fc.property(text, (asked) => {
        const selection = { partition: 3, query: parseQuery(asked), within: undefined, from: undefined }
        const search = { ...selection, order: parseOrder('-rev') as Order, after: undefined, limit: 5 }
        expect(decodeSearchQuestion(encodeSearchQuestion(search))).toEqual(search)
        const summary = { ...selection, by: [], metrics: [] }
        expect(decodeSummaryQuestion(encodeSummaryQuestion(summary))).toEqual(summary)
      }),
      { numRuns: 500 },
    )
  })

  it('matches what a plain reading of its meaning matches', () => {
    fc.assert(
      fc.property(
        query,
        fc.array(statusWith(fc.constantFrom('k1', 'k2', 'a:b')), { minLength: 1, maxLength: 5 }),
        (asked, fleet) => {
          for (const one of fleet) expect(new Matcher(asked).matches(one)).toBe(naiveMatches(asked.root, one))
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
            expect(parseQuery(printQuery(asked)).root).toEqual(asked.root)
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

/** Some of them are longer in the canonical form of a query, or in JSON. */
const inName = fc.constantFrom('a', '5', 'ä', '😀', '\u0001', '\\:', '\\"', '\\ ', '\\\\')
const inPhrase = fc.oneof(inName, fc.constantFrom(':', ' ', '*', '(', '~'))

/** A few pieces, again and again up to the length. */
function filled(piece: fc.Arbitrary<string>, length: number): fc.Arbitrary<string> {
  return fc
    .array(piece, { minLength: 1, maxLength: 9 })
    .map((pieces) => `a${pieces.join('').repeat(length)}`.slice(0, length).replace(/\\+$/, ''))
}

const times = (text: string, count: number) => Array<string>(count).fill(text)

/** Queries that are as long, as wide or as deep as they may be. */
const atLimits: fc.Arbitrary<string> = fc.oneof(
  filled(inName, MAX_QUERY_LENGTH),
  filled(inPhrase, MAX_QUERY_LENGTH - 2).map((phrase) => `"${phrase}"`),
  // A field with values in parentheses is a condition too.
  fc
    .tuple(filled(inName, 1_700), fc.constantFrom(' ', ' OR ', '||'))
    .map(([name, operator]) => `attributes.${name}:(${times('7', MAX_QUERY_CLAUSES - 1).join(operator)})`),
  fc
    .constantFrom('a', '-', '?')
    .map((first) => `rev:${`${first}${'*a'.repeat(MAX_WILDCARDS - 1)}`.padEnd(MAX_PATTERN_LENGTH, 'a')}`),
  fc
    .constantFrom(['!', ''], ['-', ''], ['(', ')'])
    .map(([open = '', close = '']) => `${open.repeat(MAX_QUERY_DEPTH)}7${close.repeat(MAX_QUERY_DEPTH)} `)
    .map((deep) => times(deep, Math.min(MAX_QUERY_CLAUSES, Math.floor(MAX_QUERY_LENGTH / deep.length))).join('')),
)
