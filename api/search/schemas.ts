import { Type } from 'typebox'
import { MAX_QUERY_LENGTH, type Query, QuerySyntaxError } from '../../processor/contract/search.ts'
import { parseQuery } from '../../processor/search/language/parser.ts'
import { Fields, Whole } from '../devices/schemas.ts'
import { EXAMPLE_DEVICE, jsonAnswer, NEXT_LINK, problemAnswers } from '../http/documentation.ts'
import { ProblemError } from '../http/problem.ts'
import { MAX_CURSOR } from './fleet-search.ts'

export const Q = Type.Optional(
  Type.String({
    maxLength: MAX_QUERY_LENGTH,
    description:
      'Which devices: Lucene\'s syntax without boosts, fuzziness, regular expressions and `+`. `field:value`, `field:"a phrase"`, `field:>=5`, `field:[1 TO 5}`, `field:a*b?` (a text that fits), `field:*` or `_exists_:field` (the field is there), `field:(a OR b)`, AND, OR and NOT in capitals, parentheses; what stands side by side is joined by AND; a bare word is in the device id. Times are compared with one in ISO 8601, or with its beginning, which stands for all of that time: `lastSeenAt:<2026-11-24T09:00:00Z`, `lastSeenAt:[2026-11-01 TO 2026-11-24]` with the last day. Absent: all.',
    examples: ['connectivity.state:offline AND reported.battery:<20 AND attributes.site:k1'],
  }),
)

/** An absent query matches all. Throws ProblemError with the position of the mistake. */
export function queryOf(text = ''): Query {
  try {
    return parseQuery(text)
  } catch (error) {
    if (!(error instanceof QuerySyntaxError)) throw error
    const { position, message } = error
    throw ProblemError.invalid([{ field: 'q', message: `at character ${position + 1}: ${message}`, position }])
  }
}

/** The shapes of `api/search/search.ts`. */

export const DEFAULT_LIMIT = 100

const FieldNames = (description: string, example: string) =>
  Type.Optional(Type.String({ minLength: 1, maxLength: 1024, description, examples: [example] }))

export const LIST_DEVICES = {
  operationId: 'listDevices',
  summary: 'Devices by query, page by page',
  description:
    'Ordered by `sort`, equals by device id. A page can hold fewer devices than `limit` when their statuses are large: only the absence of `nextCursor` says that it is the last. A device that changes between two pages is in the later one if it stands after its beginning then; one that does not change is in exactly one page. When the time for one answer is over, the answer says `"complete":false`: in the order of device ids it has a cursor to go on by.',
  querystring: Type.Object(
    {
      q: Q,
      sort: Type.Optional(
        Type.String({
          minLength: 1,
          maxLength: 256,
          default: 'deviceId',
          description:
            'A field, with `-` before it for descending. Numbers, then texts, false, true, null, lists and objects; devices without the field come last in both directions.',
          examples: ['-lastSeenAt'],
        }),
      ),
      fields: Type.Optional(Fields),
      limit: Type.Optional(
        Type.Integer({ minimum: 1, maximum: 1000, default: DEFAULT_LIMIT, description: 'Most devices in the page.' }),
      ),
      cursor: Type.Optional(
        Type.String({
          pattern: '^[A-Za-z0-9_-]+$',
          maxLength: MAX_CURSOR,
          description: '`nextCursor` of the page before, with the same `q` and `sort`. Only this API can make one.',
        }),
      ),
    },
    { additionalProperties: false },
  ),
  response: {
    200: {
      ...jsonAnswer('A page.', 'DevicePage', {
        items: [EXAMPLE_DEVICE],
        nextCursor: 'MjpmMWE2YzQ0ZDk3YjNhMjE4OltbMSwidHJ1Y2stMTciXSwidHJ1Y2stMTciXQ',
      }),
      headers: NEXT_LINK,
    },
    ...problemAnswers('partition-unavailable', 'overloaded'),
  },
}

const FRESHNESS = Type.Array(Type.Ref('Freshness#'), { description: 'Of each partition.' })
const COMPLETE = Type.Boolean({ description: 'false: see `reason`.' })
const REASON = Type.Optional(Type.String({ description: 'Why the answer is not complete; absent when it is.' }))
const COUNT = Whole()

const DeviceCount = Type.Object(
  { count: COUNT, complete: COMPLETE, reason: REASON, freshness: FRESHNESS },
  { $id: 'DeviceCount' },
)

export const COUNT_DEVICES = {
  operationId: 'countDevices',
  summary: 'How many devices there are, by query',
  description: 'A device called `count` is read by `POST /v1/devices/batch-get`.',
  querystring: Type.Object({ q: Q }, { additionalProperties: false }),
  response: {
    200: jsonAnswer('The count.', 'DeviceCount', {
      count: 17,
      complete: true,
      freshness: [EXAMPLE_DEVICE.freshness],
    }),
    ...problemAnswers('partition-unavailable', 'overloaded'),
  },
}

const Percentile = Type.Number()
const Distribution = Type.Object(
  {
    count: COUNT,
    min: Type.Number(),
    max: Type.Number(),
    mean: Type.Number(),
    exact: Type.Boolean({
      description: 'Whether the percentiles are exact; else they are within 1 % of it, told from a histogram.',
    }),
    percentiles: Type.Object({ p50: Percentile, p90: Percentile, p95: Percentile, p99: Percentile }),
  },
  { $id: 'Distribution', description: 'Of the numbers among the values; nearest-rank percentiles.' },
)

const SummaryGroup = Type.Object(
  {
    by: Type.Record(Type.String(), Type.Unknown(), { description: 'The value of each field that the devices have.' }),
    count: COUNT,
    metrics: Type.Optional(
      Type.Record(Type.String(), Type.Union([Type.Ref('Distribution#'), Type.Null()]), {
        description: 'By metric; null: no device of the group has a number there.',
      }),
    ),
  },
  { $id: 'SummaryGroup' },
)

const FleetSummary = Type.Object(
  {
    devices: Whole({ description: 'Each once, whatever groups it is in.' }),
    groups: Type.Array(Type.Ref('SummaryGroup#')),
    notShown: Whole({
      description: 'Devices of groups that found no place in the answer; where values are lists, at most so many.',
    }),
    complete: COMPLETE,
    reason: REASON,
    freshness: FRESHNESS,
  },
  { $id: 'FleetSummary' },
)

export const SEARCH_COMPONENTS = [DeviceCount, Distribution, SummaryGroup, FleetSummary]

export const SUMMARIZE_FLEET = {
  operationId: 'summarizeFleet',
  summary: 'Devices counted by the values of fields, with how metrics lie',
  description:
    'The largest groups first, at most 1,000. A device whose value is a list counts in the group of each of its first 16 elements; with several lists, in a group of each combination of theirs, 256 at most. A device without a field is in the group whose `by` lacks it.',
  querystring: Type.Object(
    {
      q: Q,
      by: FieldNames(
        'Up to 4 fields to group by, with commas between them, `\\,` for a comma in a name.',
        'connectivity.state,attributes.type',
      ),
      metric: FieldNames('Up to 4 fields whose numbers are told of in each group; as in `by`.', 'reported.temperature'),
    },
    { additionalProperties: false },
  ),
  response: {
    200: jsonAnswer('The summary.', 'FleetSummary', {
      devices: 3,
      groups: [
        {
          by: { 'connectivity.state': 'online', 'attributes.type': 'truck' },
          count: 2,
          metrics: {
            'reported.temperature': {
              count: 2,
              min: 19,
              max: 21.5,
              mean: 20.25,
              exact: true,
              percentiles: { p50: 19, p90: 21.5, p95: 21.5, p99: 21.5 },
            },
          },
        },
        { by: { 'connectivity.state': 'offline' }, count: 1, metrics: { 'reported.temperature': null } },
      ],
      notShown: 0,
      complete: true,
      freshness: [EXAMPLE_DEVICE.freshness],
    }),
    ...problemAnswers('partition-unavailable', 'overloaded'),
  },
}
