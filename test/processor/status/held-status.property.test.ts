import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Status } from '../../../processor/contract/status.ts'
import type { LogRecord } from '../../../processor/log/log.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { fold } from '../../../processor/status/fold.ts'
import { HeldStatus } from '../../../processor/status/held-status.ts'
import { corpus, SHAPES } from '../../bench/corpus.ts'
import { modelFold, statusText } from '../../status-model.ts'
import { logged, T0, telemetry } from './arbitraries.ts'

const number = fc.oneof(
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(-0, 0, 99_999_999, 1e21, 1e-7, 5e-324, 2 ** 53, 0.1),
)
const value = fc.oneof(
  { weight: 4, arbitrary: number },
  fc.constantFrom<unknown>(true, false, null, 'text', 'naïve "quoted" \\ \n \ud800', [1, -0, { b: 1, 7: 2 }], []),
)
const metric = fc.constantFrom('temperature', 'pos.lat', 'naïve "name"', '7', '10', '00', 'constructor', '\n', '漢')

/** What one device says: mostly in order, sometimes late, again, with a gap, or with other metrics. */
const stream = fc
  .array(
    fc.record({
      values: fc.dictionary(metric, value, { maxKeys: 4, noNullPrototype: true }),
      numbered: fc.boolean(),
      timed: fc.boolean(),
      seqStep: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, fc.integer({ min: -3, max: 3 })),
      tsStep: fc.integer({ min: -80, max: 200 }),
      receiptStep: fc.integer({ min: -5, max: 50 }),
    }),
    { minLength: 1, maxLength: 30 },
  )
  .map((steps) => {
    let [seq, ts, timestamp] = [5, T0, T0 + 100]
    const records = steps.map(({ values, numbered, timed, seqStep, tsStep, receiptStep }) => {
      seq = Math.max(0, seq + seqStep)
      ts += tsStep
      timestamp += receiptStep
      const json = { ...(timed ? { ts } : {}), ...(numbered ? { seq } : {}), values }
      return { key: 'd', value: Buffer.from(JSON.stringify(json)), timestamp, headers: undefined }
    })
    return logged(records)
  })

/** Folds the records in place, through bytes each time, and by the model: all give the same bytes. */
function compare(records: readonly LogRecord[]): void {
  const [held, model] = [new Map<string, HeldStatus | undefined>(), new Map<string, Status | undefined>()]
  for (const record of records) {
    const decoded = decodeRecord(record)
    if (decoded.kind === 'rejected') continue
    const id = record.key as string
    const before = held.get(id)
    const read = before && HeldStatus.decode(id, before.encode())
    const after = fold(before, id, decoded)
    held.set(id, after)
    model.set(id, modelFold(model.get(id), id, decoded))
    const expected = model.get(id)
    const text = expected && statusText(expected)
    expect(after?.text()).toBe(text)
    expect(fold(read, id, decoded)?.text()).toBe(text)
  }
}

describe('a held status', () => {
  it('becomes what the rules say, to the byte, whether or not it went through its bytes', () => {
    fc.assert(fc.property(stream, compare), { numRuns: 500 })
    fc.assert(
      fc.property(fc.array(telemetry, { maxLength: 40 }), (records) => compare(logged(records))),
      { numRuns: 500 },
    )
  })

  it.each(Object.keys(SHAPES))('does so for devices of the shape %s', (shape) => {
    compare(logged([...corpus(shape, 300, 20, 'd')]))
  })

  it('keeps each of many metrics that come one by one', () => {
    const names = Array.from({ length: 3_000 }, (_, i) => `metric-${i}`)
    compare(names.slice(0, 200).map((name, offset) => said(offset, 'one', name)))
    compare(names.map((name, offset) => said(offset, name, name)))
  })
})

function said(offset: number, key: string, name: string): LogRecord {
  return { offset, key, value: Buffer.from(JSON.stringify({ [name]: offset })), timestamp: T0, headers: undefined }
}
