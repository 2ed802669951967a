import * as fc from 'fast-check'
import { type Field, parseField } from '../../../../processor/contract/field.ts'
import {
  escapeInner,
  type Operand,
  printQuery,
  type Query,
  type QueryNode,
} from '../../../../processor/contract/search.ts'
import type { Status } from '../../../../processor/contract/status.ts'

/** Few names and values, so that queries and statuses meet. */
const NAMES = [
  'deviceId',
  'rev',
  'lastSeenAt',
  'connectivity.state',
  'counters.late',
  'reported.a',
  'reported.a.at',
  'reported.b c:"',
  'reported.p.q',
  'attributes.site',
  'attributes.p.q',
  'attributes.tags',
]

const AT = ['2026-11-24T10:00:00.000Z', '2026-11-24T10:00:00.500Z', '2026-11-25T00:00:00.000Z']
const TEXTS = ['', 'k1', 'k2', 'AND', '-x', '5', 'true', 'null', '*', 'a b', 'ä"\\', '😀', '\uffff', ...AT]
/** Longer than what an entry of an index has of a value, and alike so far: as characters, or as bytes. */
export const LONG = ['😀', '𐐀', 'nnk1', 'nnk2'].map((end) => 'n'.repeat(62) + end)
const NUMBERS = [-1.5, 0, 5, 20, 1e21]

export const field: fc.Arbitrary<Field> = fc.constantFrom(...NAMES).map((name) => parseField(name) as Field)

const text = fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...TEXTS) }, fc.string({ maxLength: 4 }))
const word = fc.oneof(
  fc.constantFrom('k1', 'k2', '5', '-1.5', 'true', 'null', 'TO', '1e21', ...AT, '2026-11-24T10:00:00Z', '2026-11-24'),
  fc.stringMatching(/^[a-z0-9_.:-]{1,4}$/),
)
const operand: fc.Arbitrary<Operand> = fc.oneof(
  fc.oneof({ weight: 7, arbitrary: text }, fc.constantFrom(...LONG)).map((quoted) => ({ text: quoted, quoted: true })),
  word.map((plain) => ({ text: plain, quoted: false })),
)
const boundWith = (words: fc.Arbitrary<string>) =>
  fc.option(fc.record({ text: words, quoted: fc.boolean(), inclusive: fc.boolean() }, { noNullPrototype: true }), {
    nil: undefined,
  })
const whole = fc.constantFrom(
  ...AT,
  '2026-11-24T10:00:00Z',
  '0000-01-01T00:00:00+01:00',
  '1969-12-31T23:59:59.9999Z',
  '9999-12-31T23:59:59-01:00',
  '2026-11-24T11:00:00.500001+01:00',
  '2026-11-24T10:00:00.5000Z',
)
/** A time has an order beside these alone. */
const moment = fc.oneof(
  whole,
  fc.constantFrom(
    '2026-11-24',
    '2026-11-24T10:00:00',
    '2026',
    '2026-11-24T10',
    '2026-11-24T10:00:00.5000001',
    '2026-11-24T10:00:00.499999',
    '2026-11-24T10:00:00.500000',
  ),
)
const bounds = fc
  .record({ any: fc.tuple(boundWith(word), boundWith(word)), times: fc.tuple(boundWith(moment), boundWith(moment)) })
  .filter(({ any, times }) => [any, times].every(([low, high]) => low !== undefined || high !== undefined))
const TIMES = ['firstSeenAt', 'lastSeenAt', 'connectivity.since']

/** As `parseQuery` has it: what would be special at the beginning is escaped there. */
const pattern = fc
  .array(fc.oneof(text.map(escapeInner), fc.constantFrom('*', '?')), { minLength: 1, maxLength: 5 })
  .map((parts) => parts.join('').replace(/^[-+!<>=/&|]/, '\\$&'))
  .filter((joined) => /(?<!\\)(?:\\\\)*[*?]/.test(joined) && !/^\*+$/.test(joined))

function conditionOf(some: fc.Arbitrary<Field>): fc.Arbitrary<QueryNode> {
  return fc.oneof(
    some.map((of) => ({ kind: 'exists', field: of }) as const),
    // The parser takes the beginning of a time for a range.
    fc.tuple(some, operand, whole, fc.boolean()).map(([of, any, time, quoted]) => {
      const isSpan = of.name.endsWith('.at') && any.text === '2026-11-24'
      const value = TIMES.includes(of.name) || isSpan ? { text: time, quoted } : any
      return { kind: 'equals', field: of, value } as const
    }),
    fc.tuple(some, pattern).map(([of, like]) => ({ kind: 'like', field: of, pattern: like }) as const),
    fc.tuple(some, bounds).map(([of, { any, times }]) => {
      const [low, high] = TIMES.includes(of.name) ? times : any
      return { kind: 'range', field: of, low, high } as const
    }),
  )
}

/** Queries about some fields. */
export function queryOf(some: fc.Arbitrary<Field>): fc.Arbitrary<Query> {
  const node = fc.letrec<{ node: QueryNode }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 3, depthSize: 'small' },
      conditionOf(some),
      tie('node').map((inner) => ({ kind: 'not', node: inner }) as const),
      fc
        .tuple(fc.constantFrom('and' as const, 'or' as const), fc.array(tie('node'), { minLength: 2, maxLength: 3 }))
        .map(
          // Nested ones of a kind are one, as for the parser.
          ([kind, nodes]) => ({ kind, nodes: nodes.flatMap((part) => (part.kind === kind ? part.nodes : [part])) }),
        ),
    ),
  })).node
  return node.map((root) => ({ root, text: printQuery({ root }) }))
}

export const query: fc.Arbitrary<Query> = queryOf(field)

const scalar = fc.oneof(fc.constantFrom(...TEXTS), fc.constantFrom(...NUMBERS), fc.boolean(), fc.constant(null))
const value = fc.oneof({ weight: 4, arbitrary: scalar }, fc.array(scalar, { maxLength: 3 }))
const metric = fc.record({ value, at: fc.constantFrom(...AT) }, { noNullPrototype: true })
const optional = { requiredKeys: [] as never[], noNullPrototype: true }

/** Whose fields the queries ask for. `deviceId` is given by the caller. */
export function statusWith(deviceId: fc.Arbitrary<string>): fc.Arbitrary<Status> {
  return fc.record(
    {
      deviceId,
      rev: fc.constantFrom(0, 5, 20),
      reported: fc.record({ a: metric, 'a.at': metric, 'b c:"': metric, 'p.q': metric }, optional),
      connectivity: fc.record(
        {
          state: fc.constantFrom('online', 'offline', 'unknown'),
          since: fc.constantFrom(...AT),
          reason: fc.constantFrom('connected', 'connection lost'),
          session: fc.nat(3),
        },
        { noNullPrototype: true },
      ),
      firstSeenAt: fc.constantFrom(...AT),
      lastSeenAt: fc.constantFrom(...AT),
      counters: fc.record(
        { messages: fc.nat(20), late: fc.constantFrom(0, 5), duplicates: fc.nat(2), skewed: fc.nat(2) },
        { noNullPrototype: true },
      ),
      attributes: fc.record(
        { site: value, tags: fc.array(scalar, { maxLength: 3 }), p: fc.record({ q: value }, optional), 'p.q': value },
        optional,
      ),
    },
    {
      requiredKeys: ['deviceId', 'rev', 'reported', 'connectivity', 'firstSeenAt', 'lastSeenAt', 'counters'],
      noNullPrototype: true,
    },
  ) as fc.Arbitrary<Status>
}
