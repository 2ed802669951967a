import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { JsonScanner } from '../../../processor/contract/json.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { Layouts } from '../../../processor/status/message.ts'
import { T0 } from './arbitraries.ts'

/** As text: what JSON allows for a number, and what it does not. */
const numberText = fc.oneof(
  { weight: 5, arbitrary: fc.integer().map(String) },
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => JSON.stringify(value)),
  fc.tuple(fc.integer({ min: -9999, max: 9999 }), fc.nat(3)).map(([value, digits]) => value.toFixed(digits)),
  fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }).map(String),
  fc.stringMatching(/^-?(0|[1-9]\d{0,17})(\.\d{1,17})?([eE][+-]?\d{1,3})?$/),
  fc.stringMatching(/^[-+.0-9eE]{1,6}$/),
  fc.constantFrom('-0', '0', '-0.0', '1e999', '-1e999', '01', '1.', '.5', '-', '9007199254740993', String(T0)),
)
const name = fc.oneof(
  fc.constantFrom('ts', 'seq', 'values', 'a', 'b', '7', '__proto__', 'constructor', 'naïve', ''),
  fc.string({ maxLength: 4 }),
)
/** Where a number goes; it stands in no other text. */
const HOLE = '\u0001'
type Template = string
const leaf: fc.Arbitrary<Template> = fc.oneof(
  { weight: 6, arbitrary: fc.constant(HOLE) },
  fc.constantFrom('true', 'null', '"text 5"', '"}"', '"\\"1"', '[]', '{}'),
)
const space = fc.constantFrom('', '', ' ', '\n')
const { message } = fc.letrec<{ message: Template; value: Template }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    leaf,
    tie('message'),
    fc.array(tie('value'), { maxLength: 2 }).map((values) => `[${values.join()}]`),
  ),
  message: fc
    .tuple(fc.array(fc.tuple(name, tie('value')), { maxLength: 4 }), space)
    .map(
      ([members, gap]) => `{${members.map(([key, value]) => `${JSON.stringify(key)}:${gap}${value}`).join(`,${gap}`)}}`,
    ),
}))
const envelope = fc
  .tuple(message, fc.boolean(), fc.boolean())
  .map(([values, ts, seq]) => `{${ts ? `"ts":${HOLE},` : ''}${seq ? `"seq":${HOLE},` : ''}"values":${values}}`)
const template = fc.oneof(message, envelope)

/** One device's messages after another's: the template of each, and its numbers. */
const stream = fc
  .tuple(
    fc.array(template, { minLength: 1, maxLength: 3 }),
    fc.array(fc.tuple(fc.nat(11), fc.infiniteStream(numberText)), { maxLength: 40 }),
  )
  .map(([templates, messages]) =>
    messages.map(([which, numbers]) => {
      const pieces = (templates[which % templates.length] as Template).split(HOLE)
      return pieces.reduce((text, piece) => text + (numbers.next().value as string) + piece)
    }),
  )

/** With headers, though none, a record is decoded without any layout. */
function slowly(bytes: Buffer) {
  return decodeRecord({ key: 'd', value: bytes, timestamp: T0, headers: {}, offset: 0 })
}

describe('messages of a known layout', () => {
  it('are read as they would be otherwise, or not at all', () => {
    let read = 0
    fc.assert(
      fc.property(stream, (messages) => {
        let layouts = new Layouts()
        for (const text of messages) {
          const bytes = Buffer.from(text)
          const reading = layouts.read(bytes, T0)
          const decoded = slowly(bytes)
          if (reading === undefined) {
            // A new one learns at once.
            if (decoded.kind === 'readings' && text.startsWith('{')) (layouts = new Layouts()).offer(bytes)
            continue
          }
          read++
          expect({ kind: 'readings', receivedAt: T0, will: undefined, readings: [reading] }).toEqual(decoded)
        }
      }),
      { numRuns: 3000 },
    )
    expect(read).toBeGreaterThan(1000)
  })

  it('are read whichever of some layouts they have', () => {
    const layouts = new Layouts()
    const kinds = Array.from({ length: 20 }, (_, kind) => (value: number) => Buffer.from(`{"m${kind}":${value}}`))
    let read = 0
    for (let i = 0; i < 20_000; i++) {
      const bytes = (kinds[i % 5] as (value: number) => Buffer)(i)
      const reading = layouts.read(bytes, T0)
      if (reading === undefined) layouts.offer(bytes)
      else read++
      expect(reading?.values ?? [i]).toEqual([i])
    }
    expect(read).toBeGreaterThan(18_000)
    for (const kind of kinds.slice(8)) {
      const bytes = kind(1)
      for (let i = 0; i < 256; i++) layouts.offer(bytes)
      expect(layouts.read(bytes, T0)?.values).toEqual([1])
    }
  })

  it('have numbers as JSON.parse reads them', () => {
    const scanner = new JsonScanner()
    fc.assert(
      fc.property(numberText, (text) => {
        scanner.begin(Buffer.from(`${text},`))
        const read = scanner.number()
        const whole = scanner.literal(Buffer.from(',')) && scanner.ended
        let parsed: unknown
        try {
          parsed = JSON.parse(text)
        } catch {
          parsed = undefined
        }
        if (whole && !Number.isNaN(read)) expect(read).toBe(parsed)
        else expect(parsed === undefined || !Number.isFinite(parsed) || text.length > 64).toBe(true)
      }),
      { numRuns: 5000 },
    )
  })
})
