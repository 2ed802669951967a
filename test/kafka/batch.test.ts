import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { LogCorruptedError } from '../../processor/contract/errors.ts'
import { nextSequence } from '../../processor/log/kafka/protocol/record-batch.ts'
import { FetchedRecords } from '../../processor/log/kafka/protocol/records.ts'
import type { LogRecord, NewRecord } from '../../processor/log/log.ts'
import { batch, sealed } from './batches.ts'

const ALL = { maxRecords: Number.MAX_SAFE_INTEGER, maxBytes: Number.MAX_SAFE_INTEGER }
const TRANSACTIONAL = 0x10
const CONTROL = 0x20

const newRecord: fc.Arbitrary<NewRecord> = fc.record({
  key: fc.option(fc.string({ unit: 'grapheme', maxLength: 40 })),
  value: fc.option(fc.uint8Array({ maxLength: 300 })),
  timestamp: fc.nat({ max: 2 ** 44 }),
  headers: fc.option(fc.dictionary(fc.stringMatching(/^[a-z-]{1,12}$/), fc.string({ unit: 'grapheme' })), {
    nil: undefined,
  }),
})

/** https://kafka.apache.org/documentation/#controlbatch; its key is two numbers. */
function marker(base: number, producer: number, type: 'abort' | 'commit'): Buffer {
  const key = type === 'abort' ? '\0\0\0\0' : '\0\0\0\x01'
  return batch([{ key, value: Buffer.alloc(6), timestamp: 1 }], base, producer, TRANSACTIONAL | CONTROL)
}

function plain({ key, value, timestamp, headers }: NewRecord): object {
  const named = Object.keys(headers ?? {}).length === 0 ? undefined : { ...headers }
  return { key, value: value === null ? null : [...value], timestamp, headers: named }
}

function readAll(records: FetchedRecords, limits = ALL): LogRecord[] {
  const all: LogRecord[] = []
  while (!records.done) {
    const slice: LogRecord[] = []
    records.read(limits, slice, 0)
    all.push(...slice)
  }
  return all
}

function record(key: string): NewRecord {
  return { key, value: Buffer.from(key), timestamp: 1 }
}

describe('record batches', () => {
  test('a batch with any bit turned over is refused, and what comes before it is read', () => {
    const first = batch([record('first')], 0)
    const second = batch([record('second'), record('third')], 1)
    const protectedBits = { min: 17 * 8, max: second.length * 8 - 1 }
    fc.assert(
      fc.property(fc.integer(protectedBits), (bit) => {
        const damaged = Buffer.from(second)
        damaged.writeUInt8(damaged.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3)
        const got: LogRecord[] = []
        const fetched = new FetchedRecords('fleet.telemetry 3', Buffer.concat([first, damaged]), [], 0)
        expect(() => fetched.read(ALL, got, 0)).toThrow(/fleet\.telemetry 3: the CRC of the batch at 1 does not fit/)
        expect(got.map(({ key }) => key)).toEqual(['first'])
      }),
    )
  })

  test('what is written is read, whatever it is and however it is sliced', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(newRecord, { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 5 }),
        fc.nat({ max: 2 ** 40 }),
        fc.record({ maxRecords: fc.integer({ min: 1, max: 20 }), maxBytes: fc.integer({ min: 1, max: 900 }) }),
        fc.nat({ max: 80 }),
        (batches, base, limits, skip) => {
          const parts: Buffer[] = []
          let offset = base
          for (const records of batches) {
            parts.push(batch(records, offset))
            offset += records.length
          }
          const from = Math.min(base + skip, offset)
          const fetched = new FetchedRecords('t 0', Buffer.concat(parts), [], from)
          expect(fetched.end?.offset).toBe(offset)
          const got = readAll(fetched, limits)
          expect(got.map(plain)).toEqual(
            batches
              .flat()
              .slice(from - base)
              .map(plain),
          )
          expect(got.map(({ offset: at }) => at)).toEqual(got.map((_, i) => from + i))
          expect(fetched.next).toBe(offset)
        },
      ),
    )
  })

  test('records of aborted transactions and markers only move the position', () => {
    const bytes = Buffer.concat([
      batch([record('committed-1')], 0, 1, TRANSACTIONAL),
      batch([record('aborted'), record('aborted')], 1, 2, TRANSACTIONAL),
      batch([record('plain')], 3, 9),
      marker(4, 1, 'commit'),
      marker(5, 2, 'abort'),
      batch([record('committed-2')], 6, 2, TRANSACTIONAL),
      marker(7, 2, 'commit'),
    ])
    const aborted = [{ producerId: 2, firstOffset: 1 }]
    const fetched = new FetchedRecords('t 0', bytes, aborted, 0)
    expect(readAll(fetched).map(({ key }) => key)).toEqual(['committed-1', 'plain', 'committed-2'])
    expect(fetched.next).toBe(8)
    const sliced = new FetchedRecords('t 0', bytes, aborted, 0)
    expect(readAll(sliced, { maxRecords: 1, maxBytes: 1 }).map(({ offset }) => offset)).toEqual([0, 3, 6])
    expect(sliced.next).toBe(8)
  })

  test('as many markers as an answer may hold are passed over in parts', () => {
    const markers = Array.from({ length: 10_000 }, (_, i) => marker(i, 1, 'abort'))
    const bytes = Buffer.concat([...markers, batch([record('after')], markers.length)])
    const fetched = new FetchedRecords('t 0', bytes, [], 0)
    const reached: number[] = []
    const got: LogRecord[] = []
    while (!fetched.done) {
      fetched.read(ALL, got, 0)
      reached.push(fetched.next)
    }
    expect(reached).toEqual([4000, 8000, 10_001])
    expect(got.map(({ offset }) => offset)).toEqual([10_000])
  })

  test('a batch that compaction emptied, and one cut short, leave no gap behind', () => {
    const emptied = batch([{ key: 'k', value: null, timestamp: 1 }], 10)
    emptied.writeInt32BE(4, 23)
    emptied.writeInt32BE(0, 57)
    const header = Buffer.from(emptied.subarray(0, 61))
    header.writeInt32BE(61 - 12, 8)
    sealed(header)
    const whole = batch([{ key: 'a', value: null, timestamp: 1 }], 15)
    const cut = batch([{ key: 'b', value: Buffer.alloc(100), timestamp: 1 }], 16).subarray(0, 80)
    const fetched = new FetchedRecords('t 0', Buffer.concat([header, whole, cut]), [], 10)
    expect(fetched.end?.offset).toBe(16)
    expect(readAll(fetched).map(({ offset }) => offset)).toEqual([15])
    expect(fetched.next).toBe(16)
  })

  test('an unknown codec and bytes that make no sense are errors that name the partition', () => {
    const unknown = batch([{ key: 'a', value: null, timestamp: 1 }], 0, 1, 5)
    expect(() => new FetchedRecords('fleet.telemetry 3', unknown, [], 0).read(ALL, [], 0)).toThrow(
      /fleet\.telemetry 3: compression codec 5 is not known/,
    )
    const broken = batch([{ key: 'a', value: null, timestamp: 1 }], 0)
    broken.writeInt32BE(9, 57)
    sealed(broken)
    expect(() => readAll(new FetchedRecords('fleet.telemetry 3', broken, [], 0))).toThrow(LogCorruptedError)
  })
})

test('the sequence of batches goes on at 0 after the highest number of 31 bits', () => {
  expect([nextSequence(0, 5), nextSequence(2 ** 31 - 2, 1), nextSequence(2 ** 31 - 2, 5)]).toEqual([5, 2 ** 31 - 1, 3])
})
