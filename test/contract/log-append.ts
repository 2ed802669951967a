import { describe, expect, test } from 'vitest'
import { deadLetter } from '../../processor/contract/dead-letter.ts'
import { OffsetOutOfRangeError } from '../../processor/contract/errors.ts'
import { partitionOf } from '../../processor/contract/partition.ts'
import type { LogRecord, NewRecord, Position } from '../../processor/log/log.ts'
import type { LogContext } from './log-harness.ts'
import { read } from './log-member.ts'
import { byKey, byText, bytes, collect, LIMITS, numbered, plain, record, sized, text } from './log-records.ts'

export function appendContract({ start }: LogContext): void {
  describe('append', () => {
    test('puts each record where its key lives, whole, in the order of the calls', async () => {
      const { log } = await start(4)
      const calls: NewRecord[][] = []
      for (let call = 0; call < 20; call++) {
        calls.push(Array.from({ length: 30 }, (_, i) => record(`device-${i % 10}`, `${call}/${i}`)))
      }
      await Promise.all(calls.map((records) => log.append('telemetry', records)))

      const expected = calls.flat()
      for (let index = 0; index < 4; index++) {
        const here = expected.filter((r) => partitionOf(r.key as string, 4) === index)
        const got = await read(log, 'telemetry', index, 0, (records) => records.length >= here.length)
        expect(byKey(got)).toEqual(byKey(here))
        expect(got.map((r) => r.offset)).toEqual(got.map((r) => r.offset).sort((a, b) => a - b))
      }
    })

    test('keeps keys, values, timestamps and headers as they are', async () => {
      const { log } = await start(1)
      const records: NewRecord[] = [
        record('a', 'plain'),
        { key: 'b', value: null, timestamp: 0 },
        { key: 'ключ-🚚', value: new Uint8Array([0, 255, 128]), timestamp: 1_790_000_000_123 },
        { key: '', value: new Uint8Array(0), timestamp: 5, headers: { metric: 'температура', kind: '' } },
      ]
      await log.append('telemetry', records)
      const got = await read(log, 'telemetry', 0, 0, (all) => all.length >= 4)
      expect(got.map(plain)).toEqual(records.map(plain))
    })

    test('takes dead letters, with and without a key', async () => {
      const { log } = await start(2)
      const keyless = { key: null, value: bytes('x'), timestamp: 1, headers: { reason: 'not-json' } }
      const keyed = record('some/topic', 'y')
      await log.append('dead-letters', [keyless])
      await log.append('dead-letters', [keyed])
      const got = await collect(log, 'dead-letters', 2, 2)
      expect(got.map(plain).sort(byText)).toEqual([keyless, keyed].map(plain).sort(byText))
    })

    test('takes the largest dead letters: of a packet of MQTT whole, of a foreign record cut', async () => {
      const { log } = await start(1)
      // A PUBLISH of 1,000,000 bytes: the length of its topic and the packet id take two bytes each.
      const topic = 'ü'.repeat(30_000)
      const packet = { key: null, value: Buffer.alloc(1_000_000 - 4 - 60_000, 'p'), timestamp: 1 }
      const foreign = {
        key: 'k'.repeat(400_000),
        value: Buffer.alloc(3_000_000, 'f'),
        timestamp: 1,
        headers: { large: 'h'.repeat(200_000), small: 'kept' },
      }
      await log.append('dead-letters', [deadLetter('bad-topic', packet, { topic })])
      await log.append('dead-letters', [deadLetter('bad-device-id', foreign, { partition: 0, offset: 7 })])
      const [whole, cut] = await collect(log, 'dead-letters', 1, 2)
      expect(Buffer.compare(Buffer.from(whole?.value ?? []), packet.value)).toBe(0)
      expect({ ...whole?.headers }).toEqual({ reason: 'bad-topic', topic })
      expect(cut?.value?.byteLength).toBeGreaterThan(1_000_000)
      expect({ ...cut?.headers }).toEqual({
        small: 'kept',
        reason: 'bad-device-id',
        partition: '0',
        offset: '7',
        truncated: 'key=400000 headers=200014 value=3000000',
      })
    })

    test('is seen by another client once it has resolved', async () => {
      const harness = await start(1)
      const other = await harness.connect()
      await harness.log.append('telemetry', [record('a', '1')])
      expect((await other.bounds({ topic: 'telemetry', index: 0 })).end).toBeGreaterThanOrEqual(1)
      const got = await read(other, 'telemetry', 0, 0, (all) => all.length > 0)
      expect(got.map(plain)).toEqual([plain(record('a', '1'))])
      expect(harness.log.fault).toBeUndefined()
    })

    test('takes nothing for an empty call', async () => {
      const { log } = await start(1)
      await log.append('telemetry', [])
      expect(await log.bounds({ topic: 'telemetry', index: 0 })).toEqual({ start: 0, end: 0 })
    })
  })

  describe('write', () => {
    test('tells where the record is, also among appends', async () => {
      const { log } = await start(4)
      const appends: Promise<void>[] = []
      const writes: Promise<Position>[] = []
      for (let i = 0; i < 30; i++) {
        appends.push(log.append('telemetry', numbered(i * 10, 10)))
        writes.push(log.write({ key: `device-${i}`, value: null, timestamp: i, headers: { kind: `${i}` } }))
      }
      await Promise.all(appends)
      const positions = await Promise.all(writes)
      for (const [i, { partition, offset }] of positions.entries()) {
        expect(partition).toBe(partitionOf(`device-${i}`, 4))
        const [there] = await read(log, 'telemetry', partition, offset, (records) => records.length > 0)
        expect([there?.offset, there?.key, there?.headers]).toEqual([offset, `device-${i}`, { kind: `${i}` }])
      }
    })
  })

  describe('follow', () => {
    test('starts at any offset and goes on with what is appended while it waits', async () => {
      const { log } = await start(1)
      await log.append('telemetry', numbered(0, 50))
      const all = await read(log, 'telemetry', 0, 0, (records) => records.length >= 50)
      for (const at of [1, 17, 49]) {
        const from = (all[at] as LogRecord).offset
        const got = await read(log, 'telemetry', 0, from, (records) => records.length >= 50 - at)
        expect(got.map(text)).toEqual(all.slice(at).map(text))
      }
      const { end } = await log.bounds({ topic: 'telemetry', index: 0 })
      const waiting = read(log, 'telemetry', 0, end, (records) => records.length >= 20)
      await log.append('telemetry', numbered(50, 10))
      await log.append('telemetry', numbered(60, 10))
      expect((await waiting).map(text)).toEqual(numbered(50, 20).map(text))
    })

    test('ends when its signal aborts, waiting or not', async () => {
      const { log } = await start(1)
      const gone = AbortSignal.abort()
      for await (const _ of log.follow({ topic: 'telemetry', index: 0 }, 0, LIMITS, gone)) expect.unreachable()
      await log.append('telemetry', numbered(0, 3))
      const stop = new AbortController()
      let seen = 0
      for await (const batch of log.follow({ topic: 'telemetry', index: 0 }, 0, LIMITS, stop.signal)) {
        seen += batch.records.length
        if (seen === 3) queueMicrotask(() => stop.abort())
      }
      expect(seen).toBe(3)
    })

    test('keeps batches within their limits, and tells where to go on and where the end is', async () => {
      const { log } = await start(1)
      const big = 40_000
      await log.append('telemetry', numbered(0, 95))
      await log.append('telemetry', [sized('big', big), sized('big', big), record('a', 'last')])
      const { end } = await log.bounds({ topic: 'telemetry', index: 0 })
      const stop = new AbortController()
      let from = 0
      const sizes: number[] = []
      const texts: string[] = []
      const limits = { maxRecords: 10, maxBytes: 20_000 }
      for await (const batch of log.follow({ topic: 'telemetry', index: 0 }, 0, limits, stop.signal)) {
        sizes.push(batch.records.length)
        expect(batch.end).toBe(end)
        for (const r of batch.records) {
          expect(r.offset).toBeGreaterThanOrEqual(from)
          expect(r.offset).toBeLessThan(batch.next)
          texts.push(text(r))
        }
        from = batch.next
        if (texts.at(-1) === 'last') break
      }
      expect(Math.max(...sizes)).toBeLessThanOrEqual(10)
      expect(texts.slice(0, 95)).toEqual(numbered(0, 95).map(text))
      expect(texts.slice(95).map((t) => t.length)).toEqual([big, big, 4])
    })

    test('refuses an offset past the end', async () => {
      const { log } = await start(1)
      await log.append('telemetry', numbered(0, 3))
      const { end } = await log.bounds({ topic: 'telemetry', index: 0 })
      const refused = read(log, 'telemetry', 0, end + 10, (records) => records.length > 0)
      await expect(refused).rejects.toBeInstanceOf(OffsetOutOfRangeError)
    })
  })
}
