import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { JsonObject } from '../../../processor/contract/json.ts'
import { decodeStatus, encodeStatus, type Status } from '../../../processor/contract/status.ts'
import type { LogRecord } from '../../../processor/log/log.ts'
import { type Decoded, decodeRecord } from '../../../processor/status/decode.ts'
import { fold } from '../../../processor/status/fold.ts'
import { advance, decodePlain, PlainEncoder, plainOf, statusOf } from '../../../processor/status/plain-status.ts'
import { logged, T0, telemetry } from './arbitraries.ts'

const number = fc.oneof(
  fc.integer({ min: -200_000_000, max: 200_000_000 }),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(-0, 0, 9, 10, 99_999_999, 100_000_000, -99_999_999, 1e21, 1e-7, 2 ** 53, 0.1),
)
const scalar = fc.oneof({ weight: 8, arbitrary: number }, fc.boolean(), fc.constant(null), fc.constant('text'))

/** What a device of one kind says: mostly in order, sometimes late, again, with a gap, or with other metrics. */
const messages = fc
  .record({
    names: fc.uniqueArray(fc.constantFrom('temperature', 'pos.lat', 'naïve "name"', '7', 'constructor', 'x'), {
      minLength: 1,
      maxLength: 4,
    }),
    numbered: fc.boolean(),
    timed: fc.boolean(),
    steps: fc.array(
      fc.record({
        values: fc.array(scalar, { minLength: 4, maxLength: 4 }),
        seqStep: fc.oneof({ weight: 8, arbitrary: fc.constant(1) }, fc.integer({ min: -2, max: 3 })),
        tsStep: fc.oneof({ weight: 8, arbitrary: fc.nat(50) }, fc.integer({ min: -80, max: 80 })),
        receiptStep: fc.integer({ min: -5, max: 50 }),
        fewer: fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, fc.constant(1)),
      }),
      { minLength: 1, maxLength: 25 },
    ),
  })
  .map(({ names, numbered, timed, steps }) => {
    let [seq, ts, timestamp] = [5, T0, T0 + 100]
    return steps.map(({ values, seqStep, tsStep, receiptStep, fewer }, offset): LogRecord => {
      seq = Math.max(0, seq + seqStep)
      ts += tsStep
      timestamp += receiptStep
      const said = Object.fromEntries(names.slice(fewer).map((name, i) => [name, values[i]]))
      const json = { ...(timed ? { ts } : {}), ...(numbered ? { seq } : {}), values: said }
      return { offset, key: 'd', value: Buffer.from(JSON.stringify(json)), timestamp, headers: undefined }
    })
  })

/** As parsed: text has no -0. */
const attributes: fc.Arbitrary<JsonObject> = fc
  .dictionary(fc.constantFrom('site', 'Größe', '漢'), scalar, { minKeys: 1, noNullPrototype: true })
  .map((json) => JSON.parse(JSON.stringify(json)) as JsonObject)

const copy = (status: Status): Status => decodeStatus(encodeStatus(status))

/** Folds both ways beside each other; how many records the plain way could do. */
function compare(records: readonly LogRecord[], held?: JsonObject): number {
  let status: Status | undefined
  let advanced = 0
  for (const record of records) {
    const decoded: Decoded = decodeRecord({ ...record, key: 'd' })
    if (decoded.kind === 'rejected') continue
    const plain = status === undefined ? undefined : plainOf(status)
    const before = plain && statusOf(plain)
    if (plain !== undefined) expect(before).toEqual(status)
    // Its kind of metrics was met just now.
    if (status !== undefined) {
      // Attributes with an escape in them are parsed.
      const escaped = JSON.stringify(status.attributes ?? {}).includes('\\')
      expect(decodePlain('d', encodeStatus(status))).toEqual(escaped ? undefined : plainOf(copy(status)))
    }
    status = fold(status, 'd', decoded)
    if (plain === undefined && status !== undefined && held !== undefined) status.attributes = held
    if (plain === undefined) continue
    if (advance(plain, decoded)) {
      expect(new PlainEncoder().encode(plain, 0).toString()).toBe(encodeStatus(status as Status).toString())
      advanced++
    } else {
      expect(statusOf(plain)).toEqual(before)
    }
    expect(plain).toEqual(plainOf(statusOf(plain)))
  }
  return advanced
}

describe('a plain status', () => {
  it('becomes what fold makes of it, to the byte, or is left as it was', () => {
    let advanced = 0
    fc.assert(
      fc.property(messages, fc.option(attributes, { nil: undefined }), (records, given) => {
        advanced += compare(records, given)
      }),
      { numRuns: 500 },
    )
    expect(advanced).toBeGreaterThan(500)
  })

  it('does so for whatever may be in the log', () => {
    fc.assert(fc.property(fc.array(telemetry, { maxLength: 40 }), (records) => void compare(logged(records))))
  })

  it('whose attributes have an escape is read by parsing it', () => {
    const record = { offset: 0, key: 'd', value: Buffer.from('{"a":1}'), timestamp: T0, headers: undefined }
    expect(compare([record, record, record], { note: 'a "quoted" word' })).toBe(2)
  })

  it('is encoded beside others in one buffer, and none runs into the next', () => {
    fc.assert(
      fc.property(fc.array(messages, { maxLength: 20 }), (devices) => {
        const encoder = new PlainEncoder()
        const expected: string[] = []
        const encoded = devices.flatMap((records, i) => {
          const [first] = records as [LogRecord]
          const decoded = decodeRecord(first)
          if (decoded.kind !== 'readings') return []
          const status = copy(fold(undefined, `device-${i}`, decoded) as Status)
          const plain = plainOf(status)
          if (plain === undefined) return []
          expected.push(encodeStatus(status).toString())
          return [encoder.encode(plain, devices.length - i - 1)]
        })
        expect(encoded.map((bytes) => bytes.toString())).toEqual(expected)
      }),
    )
  })

  it('has so many kinds as there are, not so many as are kept', () => {
    for (let i = 0; i < 3_000; i++) {
      const value = Buffer.from(JSON.stringify({ [`metric-${i}`]: i }))
      const decoded = decodeRecord({ offset: 0, key: 'd', value, timestamp: T0, headers: undefined })
      if (decoded.kind !== 'readings') throw new Error(decoded.kind)
      const plain = plainOf(fold(undefined, 'd', decoded) as Status)
      if (plain === undefined || !advance(plain, decoded)) expect.fail(`metric-${i}`)
    }
  })
})
