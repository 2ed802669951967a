import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { decodeStatus, encodeStatus, isStatus, type Status } from '../../../processor/contract/status.ts'
import { decodePlain, PlainEncoder, plainOf } from '../../../processor/status/plain-status.ts'

const AT = '2026-11-24T10:00:00.000Z'
const STATUS: Status = {
  deviceId: 'd',
  rev: 42,
  reported: { a: { value: 1.5, at: AT }, b: { value: null, at: AT } },
  connectivity: { state: 'online', since: AT, reason: 'connected', session: 5 },
  firstSeenAt: AT,
  lastSeenAt: AT,
  counters: { messages: 42, late: 0, duplicates: 0, skewed: 0 },
  sequence: { seen: [[1, 42]], session: 5, at: AT },
  attributes: { site: 'k1', n: -5e-7, tags: ['a', {}, []], owner: { 'ü.b': true } },
}
const { attributes: _a, ...BARE } = STATUS
const { sequence: _s, ...UNNUMBERED } = STATUS

const written = fc.constantFrom(STATUS, BARE, UNNUMBERED).map((status) => {
  // A kind of metrics that is known.
  plainOf(status)
  return encodeStatus(status).toString()
})
const PIECES = [
  '"',
  '\\',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '.5',
  '-',
  'e3',
  '0',
  '9',
  'x',
  ' ',
  '\n',
  'é',
  'null',
  '"x":1,',
]
const damage = fc.record({
  at: fc.noBias(fc.nat(9999)).map((tenThousandth) => tenThousandth / 10_000),
  gone: fc.constantFrom(0, 0, 1, 1, 2, Number.POSITIVE_INFINITY),
  instead: fc.oneof(fc.constantFrom('', ...PIECES), fc.string({ maxLength: 3 })),
})

it('what another program wrote nearly as statusText does is plain only when it is a status, and stays what it is', () => {
  let [taken, refused] = [0, 0]
  fc.assert(
    fc.property(written, fc.array(damage, { minLength: 1, maxLength: 2 }), (text, damages) => {
      let foreign = text
      for (const { at, gone, instead } of damages) {
        const start = Math.floor(at * foreign.length)
        foreign = foreign.slice(0, start) + instead + foreign.slice(start + gone)
      }
      const plain = decodePlain('d', Buffer.from(foreign))
      if (plain === undefined) {
        refused++
        return
      }
      taken++
      const status = JSON.parse(foreign) as Status
      expect(isStatus(status, 'd')).toBe(true)
      const kept = decodeStatus(new PlainEncoder().encode(plain, 0))
      // They may differ in -0, which JSON is not written with.
      expect(JSON.stringify(kept)).toBe(JSON.stringify(status))
    }),
    { numRuns: 10_000 },
  )
  expect(taken).toBeGreaterThan(500)
  expect(refused).toBeGreaterThan(500)
})
