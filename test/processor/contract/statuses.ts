import * as fc from 'fast-check'
import { hasBackslashInName, type Json } from '../../../processor/contract/json.ts'
import { CONNECTIVITY_REASONS, type Status } from '../../../processor/contract/status.ts'
import { MAX_TIME_MS } from '../../../processor/contract/time.ts'

const text = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: unpaired() }), fc.string())
const number = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(-0, 0, 1e21, 1e-7, -1.5e300, 5e-324, 2 ** 53),
  fc.integer(),
)
const scalar = fc.oneof(text, number, fc.boolean(), fc.constant(null))
const value: fc.Arbitrary<Json> = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof({ depthSize: 'small' }, scalar, fc.array(tie('value')), fc.dictionary(text, tie('value'))),
})).value

const count = fc.maxSafeNat()
const at = fc.integer({ min: 0, max: MAX_TIME_MS }).map((ms) => new Date(ms).toISOString())
const deviceId = fc.stringMatching(/^[A-Za-z0-9._:-]{1,128}$/)

// Names like integers come first, whenever they were added; `__proto__` names no metric.
const name = fc.oneof(text, fc.nat(20).map(String), fc.constantFrom('constructor', 'toJSON', '-1', '01'))
const reported = fc
  .array(fc.tuple(name, value, at), { maxLength: 8 })
  .map((metrics) =>
    Object.fromEntries(
      metrics.filter(([key]) => key !== '__proto__').map(([key, held, time]) => [key, { value: held, at: time }]),
    ),
  )

const range = fc.tuple(count, count)
const sequence = fc.record(
  { seen: fc.array(range, { minLength: 1, maxLength: 16 }), session: count, at },
  { requiredKeys: ['seen', 'session'], noNullPrototype: true },
)

const attributes = fc
  .dictionary(name, value, { maxKeys: 4 })
  .map((json) => Object.fromEntries(Object.entries(json).filter(([key]) => key !== '__proto__')))

/** Any status that `statusText` can write. Names with a backslash are kept out of the log: see hasBackslashInName. */
export const anyStatus: fc.Arbitrary<Status> = fc
  .record(
    {
      deviceId,
      rev: count,
      reported,
      connectivity: fc.record({
        state: fc.constantFrom('online', 'offline', 'unknown'),
        since: at,
        reason: fc.constantFrom(...CONNECTIVITY_REASONS),
        session: count,
      }),
      firstSeenAt: at,
      lastSeenAt: at,
      counters: fc.record({ messages: count, late: count, duplicates: count, skewed: count }),
      sequence,
      attributes,
    },
    {
      requiredKeys: ['deviceId', 'rev', 'reported', 'connectivity', 'firstSeenAt', 'lastSeenAt', 'counters'],
      noNullPrototype: true,
    },
  )
  .filter((any) => !hasBackslashInName(JSON.stringify(any)))

/** Characters that text seldom has: halves of surrogate pairs, controls, and what JSON escapes. */
function unpaired() {
  return fc.constantFrom('\ud800', '\udfff', '\ud83d\ude00', '\u0000', '\u2028', '"', '\\', '\n', '/', 'é', '<')
}
