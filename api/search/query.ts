import { Type } from 'typebox'
import { MAX_QUERY_LENGTH, type Query, QuerySyntaxError } from '../../processor/contract/search-query.ts'
import { parseQuery } from '../../processor/search/language/parser.ts'
import { ProblemError } from '../http/problem.ts'

/** The parameter `q`. */
export const Q = Type.Optional(
  Type.String({
    maxLength: MAX_QUERY_LENGTH,
    description:
      'Which devices: Lucene\'s syntax without boosts, fuzziness, regular expressions and `+`. `field:value`, `field:"a phrase"`, `field:>=5`, `field:[1 TO 5}`, `field:a*b?` (a text that fits), `field:*` or `_exists_:field` (the field is there), `field:(a OR b)`, AND, OR and NOT in capitals, parentheses; what stands side by side is joined by AND; a bare word is in the device id. Times are compared with one in ISO 8601, or with its beginning, which stands for all of that time: `lastSeenAt:<2026-11-24T09:00:00Z`, `lastSeenAt:[2026-11-01 TO 2026-11-24]` with the last day. Absent: all.',
    examples: ['connectivity.state:offline AND reported.battery:<20 AND attributes.site:k1'],
  }),
)

/** Absent: all. Throws ProblemError that tells the place of what is wrong. */
export function queryOf(text = ''): Query {
  try {
    return parseQuery(text)
  } catch (error) {
    if (!(error instanceof QuerySyntaxError)) throw error
    const { position, message } = error
    throw ProblemError.invalid([{ field: 'q', message: `at character ${position + 1}: ${message}`, position }])
  }
}
