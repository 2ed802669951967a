import * as fc from 'fast-check'
import type { LogRecord, NewRecord } from '../../../processor/log/log.ts'

export const T0 = Date.UTC(2026, 10, 24, 10)

const name = fc.constantFrom('a', 'b', 'pos.lat', 'constructor', '7')
const value = fc.oneof(
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.string(),
  fc.constant(null),
)
const values = fc.dictionary(name, value, { maxKeys: 3, noNullPrototype: true })

const envelope = fc.record(
  { ts: fc.integer({ min: T0 - 1000, max: T0 + 1000 }), seq: fc.nat(30), values },
  { requiredKeys: ['values'] },
)

const connection = fc.record({
  state: fc.constantFrom('online', 'offline', 'unknown'),
  reason: fc.constantFrom('connected', 'connection lost'),
  session: fc.nat(5),
})

const attributes = fc.dictionary(
  fc.constantFrom('site', 'type', '7', 'constructor'),
  fc.oneof(value, fc.dictionary(fc.constantFrom('a', 'b'), value, { maxKeys: 2, noNullPrototype: true })),
  { maxKeys: 3, noNullPrototype: true },
)
const condition = fc.oneof(
  fc.constant({}),
  fc.array(fc.nat(12), { maxLength: 4 }).map((revs) => ({ 'if-match': revs.join() })),
)

/** Writes of attributes, deletions, and what is neither. */
const write = fc
  .tuple(fc.constantFrom('replace', 'merge', 'rename'), attributes, condition)
  .map(([operation, json, rest]) => {
    return { json, headers: { kind: 'attributes', operation, ...rest } }
  })
const deletion = condition.map((rest) => ({ json: undefined, headers: { kind: 'deletion', ...rest } }))

const payload = fc.oneof(
  { weight: 4, arbitrary: fc.oneof(values, envelope, fc.array(envelope, { maxLength: 3 })).map((json) => ({ json })) },
  { weight: 1, arbitrary: connection.map((json) => ({ json, headers: { kind: 'connectivity' } })) },
  { weight: 1, arbitrary: fc.tuple(values, fc.nat(5)).map(([json, will]) => ({ json, headers: { will: `${will}` } })) },
  { weight: 2, arbitrary: write },
  { weight: 1, arbitrary: deletion },
  { weight: 1, arbitrary: fc.constantFrom<{ json: unknown }>({ json: 5 }, { json: [] }, { json: { '': 1 } }) },
)

/** Records of a few devices, as ingest would append them, bad ones among them. */
export const telemetry: fc.Arbitrary<NewRecord> = fc
  .tuple(fc.constantFrom('d1', 'd2', 'd3', 'bad id'), payload, fc.nat(2000))
  .map(([key, { json, ...rest }, at]) => ({
    key,
    value: json === undefined ? null : Buffer.from(JSON.stringify(json)),
    timestamp: T0 + at,
    headers: 'headers' in rest ? (rest.headers as Record<string, string>) : undefined,
  }))

export function logged(records: readonly NewRecord[]): LogRecord[] {
  return records.map((record, offset) => ({ ...record, offset }))
}
