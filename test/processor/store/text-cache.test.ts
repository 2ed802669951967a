import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { murmur2 } from '../../../processor/contract/partition.ts'
import { bufferOf, type Slice } from '../../../processor/contract/query.ts'
import { TextCache } from '../../../processor/store/text-cache.ts'

const MIB = 1024 * 1024

function text(deviceId: string, rest: string): string {
  return `{"deviceId":"${deviceId}","rev":"${rest}"}`
}

function shown(slice: Slice | undefined): string | undefined {
  return slice && bufferOf(slice).toString()
}

function long(id: string): string {
  return text(id, 'x'.repeat(900))
}

describe('TextCache', () => {
  it('gives a text to its owner only, and no more once it is forgotten', () => {
    const texts = new TextCache({ maxEntries: 4, maxBytes: MIB })
    const [one, other] = [texts.owner(), texts.owner()]
    const added = texts.add('a', one, text('a', 'ü'), Buffer.byteLength(text('a', 'ü')))
    expect(shown(added)).toBe(text('a', 'ü'))
    expect(shown(texts.get('a', one))).toBe(text('a', 'ü'))
    expect(texts.get('a', other)).toBeUndefined()
    expect(texts.get('ab', one)).toBeUndefined()
    texts.forget('a')
    expect(texts.get('a', one)).toBeUndefined()
  })

  it('tells devices of one hash apart', () => {
    // Found by search.
    const [a, b] = COLLIDING
    expect(murmur2(a)).toBe(murmur2(b))
    const texts = new TextCache({ maxEntries: 4, maxBytes: MIB })
    const owner = texts.owner()
    texts.add(a, owner, text(a, '1'), 100)
    expect(texts.get(b, owner)).toBeUndefined()
    texts.add(b, owner, text(b, '2'), 100)
    expect([shown(texts.get(a, owner)), shown(texts.get(b, owner))]).toEqual([text(a, '1'), text(b, '2')])
  })

  it('holds its bytes, lets the oldest go beyond them, and never touches one that was given', () => {
    const texts = new TextCache({ maxEntries: 10_000, maxBytes: 2 * MIB })
    const owner = texts.owner()
    const ids = Array.from({ length: 6_000 }, (_, i) => `device-${i}`)
    const given = ids.map((id) => texts.add(id, owner, long(id), long(id).length))
    const held = ids.filter((id) => texts.get(id, owner) !== undefined)
    expect(held.length).toBeGreaterThan(1_000)
    expect(held.length * 950).toBeLessThan(2 * MIB)
    // A few share their places with more of the others than there is room for.
    expect(held.filter((id) => ids.indexOf(id) < 3_500)).toEqual([])
    expect(given.map(shown)).toEqual(ids.map(long))
  })

  it('finds nearly all that it has room for', () => {
    const texts = new TextCache({ maxEntries: 10_000, maxBytes: 8 * MIB })
    const owner = texts.owner()
    const ids = Array.from({ length: 10_000 }, (_, i) => `device-${i}`)
    for (const id of ids) texts.add(id, owner, text(id, ''), text(id, '').length)
    const found = ids.filter((id) => shown(texts.get(id, owner)) === text(id, ''))
    expect(found.length).toBeGreaterThan(9_700)
  })

  it('does not keep what is large', () => {
    const texts = new TextCache({ maxEntries: 4, maxBytes: MIB })
    const owner = texts.owner()
    const large = text('a', 'x'.repeat(MIB))
    expect(shown(texts.add('a', owner, large, large.length))).toBe(large)
    expect(texts.get('a', owner)).toBeUndefined()
  })

  it('gives the last text that was added, or none, after any calls', () => {
    const ids = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j')
    const call = fc.tuple(fc.constantFrom('add', 'add', 'forget', 'touch'), ids, fc.nat(1), fc.nat(50_000))
    fc.assert(
      fc.property(fc.array(call, { maxLength: 200 }), (calls) => {
        const texts = new TextCache({ maxEntries: 1, maxBytes: 2 * MIB })
        const owners = [texts.owner(), texts.owner()] as const
        const last = new Map<string, string>()
        for (const [name, id, index, size] of calls) {
          const owner = owners[index] as number
          const value = text(id, 'x'.repeat(size))
          if (name === 'touch') texts.touch([id])
          if (name === 'add') {
            texts.add(id, owner, value, value.length)
            last.set(`${owner} ${id}`, value)
          }
          if (name === 'forget') {
            texts.forget(id)
            for (const each of owners) last.delete(`${each} ${id}`)
          }
          const found = texts.get(id, owner)
          if (found !== undefined) expect(shown(found) === last.get(`${owner} ${id}`)).toBe(true)
        }
      }),
    )
  })
})

const COLLIDING = ['device-39643', 'device-181974'] as const
