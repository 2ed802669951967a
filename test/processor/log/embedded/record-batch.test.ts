import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { LogCorruptedError } from '../../../../processor/contract/errors.ts'
import type { LogRecord, NewRecord } from '../../../../processor/contract/record.ts'
import { Arena, BatchBuilder, BatchReader, sizeBound } from '../../../../processor/log/embedded/record-batch.ts'

const text = fc.string({ unit: 'grapheme', maxLength: 20 })
const records: fc.Arbitrary<NewRecord[]> = fc.array(
  fc.record({
    key: fc.option(text),
    value: fc.option(fc.uint8Array({ maxLength: 40 })),
    timestamp: fc.nat(2 ** 42),
    headers: fc.option(
      fc.dictionary(
        text.filter((name) => name !== '__proto__'),
        text,
        { maxKeys: 3 },
      ),
      {
        nil: undefined,
      },
    ),
  }),
  { minLength: 1, maxLength: 30 },
)

function encode(all: readonly NewRecord[]): Buffer {
  return new Arena(1 << 16).encode(
    all,
    0,
    all.length,
    all.reduce((sum, r) => sum + sizeBound(r), 0),
  )
}

function decode(bytes: Buffer, base: number): LogRecord[] {
  const reader = new BatchReader(bytes, base)
  const all: LogRecord[] = []
  while (reader.next()) {
    const record = reader.record()
    expect(reader.key).toBe(record.key)
    expect(reader.tombstone).toBe(record.value === null)
    all.push(record)
  }
  return all
}

function plain(record: NewRecord): object {
  const { key, value, timestamp, headers } = record
  return { key, value: value && [...value], timestamp, headers: headers && { ...headers } }
}

describe('a record batch', () => {
  test('reads as it was written', () => {
    fc.assert(
      fc.property(records, fc.nat(2 ** 48), (all, base) => {
        const got = decode(encode(all), base)
        expect(got.map(plain)).toEqual(all.map(plain))
        expect(got.map((r) => r.offset)).toEqual(all.map((_, i) => base + i))
      }),
    )
  })

  test('tells its end and its newest timestamp', () => {
    const all = [7, 9, 8].map((timestamp) => ({ key: 'k', value: null, timestamp }))
    const reader = new BatchReader(encode(all), 5)
    expect([reader.end, reader.newest, reader.count]).toEqual([8, 9, 3])
  })

  test('does not overrun its arena, and reuses it', () => {
    const arena = new Arena(200)
    const one = [{ key: 'k', value: Buffer.alloc(100, 'a'), timestamp: 1 }]
    const first = arena.encode(one, 0, 1, 200)
    const second = arena.encode(one, 0, 1, 200)
    expect(decode(first, 0)).toEqual(decode(second, 0))
    arena.reset()
    const big = [{ key: 'k', value: Buffer.alloc(1000, 'b'), timestamp: 1 }]
    expect(decode(arena.encode(big, 0, 1, 1100), 0)[0]?.value?.byteLength).toBe(1000)
  })

  test('has an arena that grows to what one write needs, and no further', () => {
    const KIB = 1024
    const arena = new Arena(256 * KIB)
    const large = [{ key: 'k', value: Buffer.alloc(100 * KIB, 'a'), timestamp: 1 }]
    const memoryOf = (count: number) => {
      arena.reset()
      return new Set(Array.from({ length: count }, () => arena.encode(large, 0, 1, 101 * KIB).buffer)).size
    }
    expect([memoryOf(2), memoryOf(2), memoryOf(2)]).toEqual([2, 2, 1])
    expect([memoryOf(3), memoryOf(3)]).toEqual([2, 2])
  })

  test('moves records to another batch as they are, at their offsets', () => {
    fc.assert(
      fc.property(records, records, fc.func(fc.boolean()), (first, second, kept) => {
        const builder = new BatchBuilder(100, 16)
        const expected: LogRecord[] = []
        let base = 100
        for (const all of [first, second]) {
          const reader = new BatchReader(encode(all), base)
          while (reader.next()) {
            if (!kept(reader.offset)) continue
            expected.push(reader.record())
            builder.add(reader)
          }
          base = reader.end
          builder.cover(base)
        }
        const bytes = builder.finish()
        const got = decode(bytes, 100)
        expect(got.map(plain)).toEqual(expected.map(plain))
        expect(got.map((r) => r.offset)).toEqual(expected.map((r) => r.offset))
        expect(new BatchReader(bytes, 100).end).toBe(base)
      }),
    )
  })

  test('notes on a tombstone when it may go, and keeps the rest of it', () => {
    const tombstone = { key: 'k', value: null, timestamp: 3, headers: { a: 'b' } }
    const builder = new BatchBuilder(0, 16)
    const reader = new BatchReader(encode([tombstone]), 0)
    reader.next()
    expect(reader.deleteAt).toBeUndefined()
    builder.add(reader, 12_345)
    builder.cover(1)
    const moved = new BatchReader(builder.finish(), 0)
    moved.next()
    expect(moved.deleteAt).toBe(12_345)
    expect(plain(moved.record())).toEqual(plain(tombstone))
  })

  test('that is damaged is refused, wherever it is cut', () => {
    const bytes = encode([
      { key: 'key', value: Buffer.from('value'), timestamp: 1 },
      { key: 'other', value: null, timestamp: 2, headers: { reason: 'x' } },
    ])
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decode(bytes.subarray(0, length), 0)).toThrow(LogCorruptedError)
    }
    expect(() => decode(Buffer.concat([bytes, Buffer.alloc(1)]), 0)).toThrow(LogCorruptedError)
    expect(() => decode(Buffer.from(bytes).fill(9, 0, 1), 0)).toThrow(/version 9/)
  })
})
