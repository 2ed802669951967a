import * as fc from 'fast-check'
import { MemoryLevel } from 'memory-level'
import pino from 'pino'
import { expect, it } from 'vitest'
import { decodeStatus } from '../../../processor/contract/status.ts'
import type { LogRecord, NewRecord } from '../../../processor/log/log.ts'
import { foldBatch } from '../../../processor/partition/batch.ts'
import { ReadSize } from '../../../processor/partition/batch-devices.ts'
import { Turns } from '../../../processor/runtime/turns.ts'
import { decodeRecord } from '../../../processor/status/decode.ts'
import { indexedIn } from '../../../processor/store/index-entries.ts'
import type { Database } from '../../../processor/store/level-store.ts'
import { LevelStores } from '../../../processor/store/level-stores.ts'
import { StatusCache } from '../../../processor/store/status-cache.ts'
import type { StateStore } from '../../../processor/store/store.ts'
import { encodeStatus, modelDecide, modelFold } from '../../status-model.ts'
import { logged, T0, telemetry } from '../status/arbitraries.ts'

const number = fc.oneof(fc.constantFrom(0, -1, 1.5, 1e21, 99_999_999, 100_000_000, 5e-324, null, true), fc.integer())
/** What a device says that reports the same metrics all the time, mostly in order: for that the fold has a way of its own. */
const steady = fc.record({
  key: fc.constantFrom('d1', 'd2'),
  values: fc.array(fc.record({ a: number, 'pos.lat': number }, { noNullPrototype: true }), { maxLength: 8 }),
  timed: fc.boolean(),
  numbered: fc.boolean(),
  step: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(1) }, fc.constantFrom(-1, 0, 2)),
  // Some pass the ten minutes that have one entry of the index.
  later: fc.constantFrom(0, 100, 400_000),
})
const said = fc
  .array(fc.oneof({ weight: 3, arbitrary: steady }, { weight: 2, arbitrary: telemetry }), { maxLength: 24 })
  .map((parts) => {
    let now = T0
    const numbers: Record<string, number> = {}
    const records = parts.flatMap((part): NewRecord[] => {
      if ('timestamp' in part) return [part]
      const { key, timed, numbered, step, later } = part
      return part.values.map((values) => {
        now += later
        const seq = (numbers[key] = Math.max(0, (numbers[key] ?? 0) + step))
        const json = { ...(timed ? { ts: now - 50 } : {}), ...(numbered ? { seq } : {}), values }
        return { key, value: Buffer.from(JSON.stringify(json)), timestamp: now, headers: undefined }
      })
    })
    return logged(records)
  })

/** Of each device the JSON of its status, record by record, with no cache, no layout and nothing kept in between. */
function naive(records: readonly LogRecord[]): Map<string, string> {
  const statuses = new Map<string, string>()
  for (const record of records) {
    const decoded = decodeRecord(record)
    if (decoded.kind === 'rejected') continue
    const deviceId = record.key as string
    const held = statuses.get(deviceId)
    const before = held === undefined ? undefined : decodeStatus(Buffer.from(held))
    const after =
      decoded.kind === 'write' ? modelDecide(before, decoded.write).status : modelFold(before, deviceId, decoded)
    if (after === undefined) statuses.delete(deviceId)
    else statuses.set(deviceId, encodeStatus(after).toString())
  }
  return statuses
}

async function opened(): Promise<{ db: Database; store: StateStore }> {
  const db = new MemoryLevel<string, Buffer>({ keyEncoding: 'utf8', valueEncoding: 'buffer' }) as unknown as Database
  const identity = { cluster: '', telemetry: '', status: '', partitions: 1 }
  const stores = await LevelStores.open(db, { identity, logger: pino({ enabled: false }) })
  const store = await stores.store(0)
  await store.commit(new Map(), reached(0), 0, [])
  return { db, store }
}

function reached(position: number) {
  return { input: position, changelog: position, whole: true, since: 1 }
}

async function indexOf(db: Database): Promise<[string, string][]> {
  const parts = await Promise.all(['i', 'c'].map((from) => db.iterator({ gte: from, lt: `${from}~` }).all()))
  return parts.flat().map(([key, value]) => [key, value.toString()])
}

it('a partition holds, after each batch, what its records come to one by one, and its index what there is', async () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 5 })
  const limits = fc.record({ maxEntries: fc.constantFrom(1, 2, 9), maxBytes: fc.constantFrom(400, 100_000) })
  const property = fc.asyncProperty(
    said,
    sizes,
    limits,
    fc.constantFrom(1, 600, 1e7),
    async (records, of, room, maxBytes) => {
      const { db, store } = await opened()
      const [cache, owner, reads, turns] = [new StatusCache(room), {}, new ReadSize(), new Turns()]
      let at = 0
      for (let batch = 1; at < records.length; batch++) {
        const context = {
          partition: 0,
          store,
          cache,
          turn: turns.take(),
          owner,
          batch,
          maxBytes,
          reads,
          restored: false,
        }
        const effects = await foldBatch(records.slice(at, at + (of[batch % of.length] as number)), context)
        expect(effects.records).toBeGreaterThan(0)
        expect(effects.foreign).toEqual([])
        at += effects.records
        await store.commit(effects.writes, reached(at), effects.added, effects.moves)
        const expected = naive(records.slice(0, at))
        const held = await store.range(undefined, 100)
        expect(new Map(held.map(([id, value]) => [id, Buffer.from(value).toString()]))).toEqual(expected)
        expect(store.count).toBe(expected.size)
        for (const [id, status] of expected) {
          const entry = cache.get(id, owner)
          if (entry === undefined) continue
          expect((entry.json ??= entry.status.encode()).toString()).toBe(status)
          expect(entry.bytes).toBe(Buffer.byteLength(status))
        }
      }
      const anew = await opened()
      const writes = new Map(await store.range(undefined, 100))
      const moves = Array.from(writes, ([deviceId, value]) => ({
        deviceId,
        before: undefined,
        after: indexedIn(deviceId, value),
      }))
      await anew.store.commit(writes, reached(1), writes.size, moves)
      expect(await indexOf(db)).toEqual(await indexOf(anew.db))
    },
  )
  await fc.assert(property, { numRuns: 300 })
})
