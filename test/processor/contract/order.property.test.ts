import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Json } from '../../../processor/contract/json.ts'
import {
  compareInOrder,
  parseOrder,
  printOrder,
  type SortKey,
  sortKey,
  sortKeyOf,
} from '../../../processor/contract/order.ts'

const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 3 }), fc.constantFrom('a'.repeat(128), 'a'.repeat(129)))
const value: fc.Arbitrary<Json | undefined> = fc.oneof(
  fc.constantFrom<Json | undefined>(undefined, null, true, false, [], {}, -0, 0),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  text,
)
const device = fc.record({ value, id: fc.constantFrom('a', 'b', 'c') })

/** The written rule: numbers, texts by code points, false, true, null, lists and objects; missing last in any direction. */
function naiveRank(of: Json | undefined): number {
  if (of === undefined) return 9
  if (of === null) return 4
  if (typeof of === 'boolean') return of ? 3 : 2
  return typeof of === 'number' ? 0 : typeof of === 'string' ? 1 : 5
}

function points(of: Json | undefined): Buffer {
  return Buffer.from((of as string).slice(0, 128))
}

function naive(descending: boolean, a: { value: Json | undefined; id: string }, b: typeof a): number {
  const sign = descending ? -1 : 1
  const ranks = naiveRank(a.value) - naiveRank(b.value)
  if (ranks !== 0) return a.value === undefined || b.value === undefined ? ranks : sign * ranks
  let difference = 0
  if (typeof a.value === 'number') difference = a.value - (b.value as number)
  if (typeof a.value === 'string') {
    difference = Buffer.compare(points(a.value), points(b.value))
  }
  return difference !== 0 ? sign * difference : a.id < b.id ? -1 : a.id > b.id ? 1 : 0
}

describe('the order of a list', () => {
  it('is the written one', () => {
    fc.assert(
      fc.property(fc.boolean(), device, device, (descending, a, b) => {
        const compared = compareInOrder(descending, sortKey(a.value), a.id, sortKey(b.value), b.id)
        expect(Math.sign(compared)).toBe(Math.sign(naive(descending, a, b)))
      }),
      { numRuns: 3000 },
    )
  })

  it('has keys that a cursor can carry', () => {
    fc.assert(
      fc.property(value, (of) => {
        const key = sortKey(of)
        const carried = sortKeyOf(JSON.parse(JSON.stringify(key)))
        expect(compareInOrder(false, carried as SortKey, 'a', key, 'a')).toBe(0)
      }),
    )
  })

  it.each([
    [5],
    [null],
    [[]],
    [[0]],
    [[0, '1']],
    [[0, null]],
    [[1, 1]],
    [[1]],
    [[2, 1]],
    [[7]],
    [['0', 1]],
    [{ 0: 3 }],
  ])('has no key %j', (json) => {
    expect(sortKeyOf(json)).toBeUndefined()
  })

  it('is read and printed', () => {
    for (const name of ['deviceId', '-lastSeenAt', 'reported.a-b.at', '-attributes.site']) {
      const order = parseOrder(name)
      expect(order && printOrder(order)).toBe(name)
    }
    for (const name of ['', '-', '--rev', 'foo', 'reported', 'connectivity.foo', '+rev'])
      expect(parseOrder(name)).toBeUndefined()
  })
})
