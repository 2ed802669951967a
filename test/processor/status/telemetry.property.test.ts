import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { attributesFault } from '../../../processor/contract/attributes.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { MAX_AHEAD_MS, MAX_METRIC_NAME, MAX_METRICS } from '../../../processor/status/message.ts'
import { T0 } from './arbitraries.ts'

const keys = fc.option(fc.oneof(fc.constant('d'), fc.string()))
const headerSets = fc.option(
  fc.dictionary(
    fc.constantFrom('kind', 'metric', 'will', 'operation', 'if-match'),
    fc.oneof(fc.constantFrom('connectivity', 'attributes', 'deletion', 'merge', '1,2'), fc.string()),
    {
      noNullPrototype: true,
    },
  ),
  { nil: undefined },
)
const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 64 }),
  fc.json({ maxDepth: 20 }).map((text) => Buffer.from(text)),
  fc.object({ maxDepth: 20 }).map((json) => Buffer.from(JSON.stringify({ values: json, ts: T0 }))),
)
const timestamps = fc.oneof(fc.constant(T0), fc.double(), fc.maxSafeInteger())

describe('decodeRecord', () => {
  it('is total: whatever the record is, it becomes readings, a connection, a write or a reason, within the bounds', () => {
    fc.assert(
      fc.property(keys, fc.option(bytes), timestamps, headerSets, (key, value, timestamp, headers) => {
        const decoded = decodeRecord({ key, value, timestamp, headers, offset: 0 })
        if (decoded.kind === 'write' && decoded.write.kind === 'attributes') {
          expect(headers?.kind).toBe('attributes')
          expect(attributesFault(decoded.write.attributes)).toBeUndefined()
        }
        if (decoded.kind !== 'readings') return
        for (const { names, values, at } of decoded.readings) {
          expect(names.length).toBe(values.length)
          expect(names.length).toBeLessThanOrEqual(MAX_METRICS)
          for (const name of names) expect(name.length).toBeLessThanOrEqual(MAX_METRIC_NAME)
          if (at !== undefined) expect(Date.parse(at)).toBeLessThanOrEqual(timestamp + MAX_AHEAD_MS)
        }
      }),
      { numRuns: 2000 },
    )
  })

  it('reads the same from any view of the bytes', () => {
    fc.assert(
      fc.property(bytes, fc.nat(9), (value, shift) => {
        const shifted = new Uint8Array(value.length + shift)
        shifted.set(value, shift)
        const record = { key: 'd', timestamp: T0, headers: undefined, offset: 0 }
        expect(decodeRecord({ ...record, value: shifted.subarray(shift) })).toEqual(decodeRecord({ ...record, value }))
      }),
    )
  })
})
