import { array, assert, constantFrom, jsonValue, nat, property, string, stringMatching, tuple } from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeCursor, encodeCursor, MAX_CURSOR } from '../../../api/search/fleet-search.ts'
import { type Order, parseOrder, sortKey } from '../../../processor/contract/order.ts'
import { parseQuery } from '../../../processor/search/language/parser.ts'

const order = (text: string) => parseOrder(text) as Order
const BY_ID = order('deviceId')
const ALL = parseQuery('')
const place = tuple(jsonValue({ maxDepth: 0 }), stringMatching(/^[A-Za-z0-9._:-]{1,128}$/)).map(
  ([value, deviceId]) => ({
    key: sortKey(value as never),
    deviceId,
  }),
)

describe('a cursor', () => {
  it('brings back its place, for its query however that is written, and its order', () => {
    assert(
      property(place, (at) => {
        const cursor = encodeCursor(at, parseQuery('rev:5 AND truck'), order('-rev'))
        expect(decodeCursor(cursor, parseQuery('(rev:5)   truck'), order('-rev'))).toEqual(
          JSON.parse(JSON.stringify(at)),
        )
      }),
    )
  })

  it('is none of another query or order', () => {
    const cursor = encodeCursor({ key: [1, 'a'], deviceId: 'a' }, ALL, BY_ID)
    expect(decodeCursor(cursor, ALL, BY_ID)).toBeDefined()
    expect(decodeCursor(cursor, ALL, order('-deviceId'))).toBeUndefined()
    expect(decodeCursor(cursor, ALL, order('lastSeenAt'))).toBeUndefined()
    expect(decodeCursor(cursor, parseQuery('rev:1'), BY_ID)).toBeUndefined()
  })

  it('is refused once one character of it differs', () => {
    assert(
      property(place, nat(), constantFrom('a', 'b', 'X', 'Y', '0', '9', '-', '_'), (of, at, c) => {
        const cursor = encodeCursor(of, ALL, BY_ID)
        const i = at % cursor.length
        const garbled = cursor.slice(0, i) + c + cursor.slice(i + 1)
        if (garbled !== cursor) expect(decodeCursor(garbled, ALL, BY_ID)).toBeUndefined()
      }),
    )
  })

  it('is refused, whatever text it is', () => {
    assert(property(string({ unit: 'binary' }), (text) => decodeCursor(text, ALL, BY_ID) === undefined))
    assert(
      property(array(jsonValue()), (json) => {
        const text = Buffer.from(`2:0123456789abcdef:${JSON.stringify(json)}`).toString('base64url')
        expect(decodeCursor(text, ALL, BY_ID)).toBeUndefined()
      }),
    )
  })

  it('is never longer than the schema says', () => {
    const at = { key: sortKey('\u0000'.repeat(500)), deviceId: 'x'.repeat(128) }
    expect(encodeCursor(at, ALL, BY_ID).length).toBeLessThanOrEqual(MAX_CURSOR)
  })
})
