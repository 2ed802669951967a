import { describe, expect, it } from 'vitest'
import { attributesFault, MAX_ATTRIBUTES_BYTES, MAX_ATTRIBUTES_DEPTH } from '../../../processor/contract/attributes.ts'
import type { JsonObject } from '../../../processor/contract/json.ts'
import type { Status } from '../../../processor/contract/status.ts'
import { MAX_VERSIONS, type Write, writeRecord } from '../../../processor/contract/write.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { decideStatus, foldStatus } from '../../status-model.ts'

const T0 = Date.UTC(2026, 10, 24, 10)

function known(attributes?: JsonObject): Status {
  const value = Buffer.from('{"a":1}')
  const decoded = decodeRecord({ key: 'd', value, timestamp: T0, offset: 0 })
  if (decoded.kind === 'rejected') throw new Error(decoded.reason)
  const status = foldStatus(undefined, 'd', decoded) as Status
  return attributes === undefined ? status : { ...status, attributes }
}

const replace = (attributes: JsonObject, ifMatch?: string[]): Write => {
  return { kind: 'attributes', operation: 'replace', attributes, ifMatch }
}
const merge = (attributes: JsonObject): Write => ({
  kind: 'attributes',
  operation: 'merge',
  attributes,
  ifMatch: undefined,
})
const deletion = (ifMatch?: string[]): Write => ({ kind: 'deletion', ifMatch })
const large = (bytes: number) => ({ a: 'x'.repeat(bytes - '{"a":""}'.length) })

describe('a write', () => {
  it('replaces the attributes, and rev grows', () => {
    const { outcome, status } = decideStatus(known({ site: 'k1', type: 'van' }), replace({ site: 'k2' }))
    expect(outcome).toBe('applied')
    expect(status).toMatchObject({ rev: 2, attributes: { site: 'k2' }, counters: { messages: 1 } })
    expect(status?.attributes).not.toHaveProperty('type')
  })

  it('that changes nothing is applied, and rev stays', () => {
    for (const write of [replace({ site: 'k1' }), merge({}), merge({ site: 'k1', gone: null })]) {
      expect(decideStatus(known({ site: 'k1' }), write)).toEqual({ outcome: 'applied', status: known({ site: 'k1' }) })
    }
    expect(decideStatus(known(), replace({}))).toEqual({ outcome: 'applied', status: known() })
  })

  it('leaves no attributes where none are left', () => {
    for (const write of [replace({}), merge({ site: null })]) {
      const { status } = decideStatus(known({ site: 'k1' }), write)
      expect(status?.rev).toBe(2)
      expect(status).not.toHaveProperty('attributes')
    }
  })

  it('deletes the device', () => {
    expect(decideStatus(known(), deletion())).toEqual({ outcome: 'applied', status: undefined })
  })

  it('makes no device', () => {
    for (const write of [replace({ a: 1 }), merge({ a: 1 }), deletion(), deletion(['1'])]) {
      expect(decideStatus(undefined, write)).toEqual({ outcome: 'unknown-device', status: undefined })
    }
  })

  it('with a condition is applied at one of its versions only', () => {
    const [born, other] = ['2026-11-24T10:00:00.000Z', '2026-11-24T10:00:00.001Z']
    expect(decideStatus(known(), deletion([`1-${other}`, `1-${born}`])).outcome).toBe('applied')
    expect(decideStatus(known(), deletion([`1-${other}`, `2-${born}`])).outcome).toBe('stale')
    expect(decideStatus(known(), replace({ a: 1 }, ['7', '1'])).outcome).toBe('applied')
    expect(decideStatus(known(), deletion(['1'])).outcome).toBe('applied')
    for (const write of [replace({ a: 1 }, ['2']), replace({ a: 1 }, []), deletion(['0'])]) {
      expect(decideStatus(known(), write)).toEqual({ outcome: 'stale', status: known() })
    }
  })

  it('may leave attributes of up to the bound', () => {
    const full = large(MAX_ATTRIBUTES_BYTES)
    expect(decideStatus(known(), replace(full)).outcome).toBe('applied')
    expect(decideStatus(known(full), merge({ b: 1 }))).toEqual({ outcome: 'attributes-too-large', status: known(full) })
    expect(decideStatus(known(full), merge({ a: null, b: 1 })).outcome).toBe('applied')
  })

  it('does not change what it is made of', () => {
    const first = replace({ tags: { a: 1 } })
    const { status } = decideStatus(known(), first)
    decideStatus(status, merge({ tags: { b: 2 } }))
    expect(first).toEqual(replace({ tags: { a: 1 } }))
  })
})

// RFC 7396 appendix A, those of an object on an object.
it.each<[JsonObject, JsonObject, JsonObject]>([
  [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
  [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
  [{ a: 'b' }, { a: null }, {}],
  [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
  [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
  [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
  [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
  [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
  [{ e: null }, { a: 1 }, { e: null, a: 1 }],
  [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  [{ a: 1 }, { a: { toString: 1 } }, { a: { toString: 1 } }],
])('merges as RFC 7396 does: %j and %j', (target, patch, expected) => {
  expect(decideStatus(known(target), merge(patch)).status?.attributes ?? {}).toEqual(expected)
})

describe('a record of a write', () => {
  it.each<[string, Write]>([
    ['replace', replace({ site: 'k1', tags: ['a', { b: null }] })],
    ['merge', merge({ site: null })],
    ['condition', replace({}, ['4', '5'])],
    ['condition of nothing', deletion([])],
    ['deletion', deletion()],
    ['conditional deletion', deletion(['3'])],
    ['a condition of many', deletion(Array.from({ length: MAX_VERSIONS }, (_, i) => `${i}`))],
    ['the largest', replace(large(MAX_ATTRIBUTES_BYTES))],
  ])('gives the write again: %s', (_, write) => {
    expect(decodeRecord({ ...writeRecord('d', write, T0), offset: 0 })).toEqual({ kind: 'write', write })
  })

  const attributes = { kind: 'attributes', operation: 'merge' }
  it.each<[string, Record<string, string>, string | null, string]>([
    ['no operation', { kind: 'attributes' }, '{}', 'bad-operation'],
    ['another operation', { ...attributes, operation: 'move' }, '{}', 'bad-operation'],
    ['no value', attributes, null, 'not-json'],
    ['an array', attributes, '[]', 'not-an-object'],
    ['no JSON', attributes, '{', 'not-json'],
    ['too many bytes', attributes, JSON.stringify(large(MAX_ATTRIBUTES_BYTES + 1)), 'attributes-too-large'],
    ['an infinite number', attributes, '{"a":[1e999]}', 'bad-number'],
    ['a prototype', attributes, '{"a":{"__proto__":1}}', 'bad-attribute-name'],
    ['an empty name', attributes, '{"":1}', 'bad-attribute-name'],
    ['a text for a version', { ...attributes, 'if-match': 'x' }, '{}', 'bad-condition'],
    [
      'too many revs',
      {
        kind: 'deletion',
        'if-match': Array(MAX_VERSIONS + 1)
          .fill(1)
          .join(),
      },
      null,
      'bad-condition',
    ],
    ['a deletion with a value', { kind: 'deletion' }, '{}', 'bad-deletion'],
    ['a kind of its own', { kind: 'rename' }, '{}', 'bad-kind'],
  ])('is rejected with its reason: %s', (_, headers, value, reason) => {
    const record = { key: 'd', value: value === null ? null : Buffer.from(value), timestamp: T0, offset: 0, headers }
    expect(decodeRecord(record)).toEqual({ kind: 'rejected', reason })
  })
})

it('says where attributes are at fault', () => {
  const nested = (depth: number): JsonObject => (depth === 1 ? {} : { a: nested(depth - 1) })
  expect(attributesFault(nested(MAX_ATTRIBUTES_DEPTH))).toBeUndefined()
  expect(attributesFault(nested(MAX_ATTRIBUTES_DEPTH + 1))).toEqual({
    fault: 'too-deep',
    at: Array(MAX_ATTRIBUTES_DEPTH).fill('a').join('.'),
  })
  expect(attributesFault({ tags: [{ n: 1 }, { n: Number.POSITIVE_INFINITY }] })).toEqual({
    fault: 'bad-number',
    at: 'tags[1].n',
  })
})
