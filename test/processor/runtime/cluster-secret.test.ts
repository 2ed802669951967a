import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { GOOD_FOR_MS, isSigned, sign } from '../../../processor/runtime/cluster-secret.ts'

const SECRET = '0123456789abcdef'
const NOW = 1_764_000_000_000
const request = { method: 'POST', path: '/read', body: '{"ids":["truck-1"]}' }

test('a signature is good for its own request alone, and never shows the secret', () => {
  fc.assert(
    fc.property(fc.record({ method: fc.string(), path: fc.string(), body: fc.string() }), (other) => {
      const signature = sign(SECRET, other, NOW)
      expect(isSigned(SECRET, other, signature, NOW)).toBe(true)
      expect(isSigned(SECRET, request, signature, NOW)).toBe(false)
      expect(isSigned(`${SECRET}0`, other, signature, NOW)).toBe(false)
      expect(signature).not.toContain(SECRET)
    }),
  )
})

test('a signature ends, and does not begin long before', () => {
  const signature = sign(SECRET, request, NOW)
  for (const [after, good] of [
    [GOOD_FOR_MS, true],
    [-GOOD_FOR_MS, true],
    [GOOD_FOR_MS + 1, false],
    [-GOOD_FOR_MS - 1, false],
  ] as const) {
    expect(isSigned(SECRET, request, signature, NOW + after)).toBe(good)
  }
})

test.each([undefined, '', `Bearer ${SECRET}`, 'Tidemark', `Tidemark time=${NOW}, digest=00`])(
  'a request with %j is not signed',
  (authorization) => expect(isSigned(SECRET, request, authorization, NOW)).toBe(false),
)
