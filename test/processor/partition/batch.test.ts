import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { writeRecord } from '../../../processor/contract/write.ts'
import type { LogRecord } from '../../../processor/log/log.ts'
import { foldBatch } from '../../../processor/partition/batch.ts'
import { ReadSize } from '../../../processor/partition/batch-devices.ts'
import { type Turn, Turns } from '../../../processor/runtime/turns.ts'
import { StatusCache } from '../../../processor/store/status-cache.ts'
import type { StateStore } from '../../../processor/store/store.ts'

const DEVICES = 400
/** Of one turn: its work, and the status that ends it. */
const MAX_PARSED_BYTES = 640 * 1024

const parse = JSON.parse
const stringify = JSON.stringify
/** Values of attributes written out in one turn: 700 of them, twice, take 0.4 ms. */
const MAX_WRITTEN = 12_000
/** Records refused in one turn: what is not JSON takes 5 to 11 µs to find out. */
const MAX_REFUSED = 500

/** In this turn of the event loop. */
let parsed: number
let mostParsed: number
let refused: number
let mostRefused: number
let written: number
let mostWritten: number

beforeEach(() => {
  parsed = 0
  mostParsed = 0
  mostRefused = 0
  mostWritten = 0
  vi.spyOn(JSON, 'parse').mockImplementation((text, reviver) => {
    parsed += text.length
    mostParsed = Math.max(mostParsed, parsed)
    mostRefused = Math.max(mostRefused, ++refused)
    return parse(text, reviver)
  })
  vi.spyOn(JSON, 'stringify').mockImplementation((value) => {
    if (typeof value === 'object') written += Object.keys(value as object).length
    mostWritten = Math.max(mostWritten, written)
    return stringify(value)
  })
})

afterEach(() => {
  vi.restoreAllMocks()
})

/** The turns of one batch, which begins in a turn of its own. */
function turnOf(turns: Turns): Turn {
  const turn = turns.take()
  const next = turn.next.bind(turn)
  turn.next = async () => {
    await next()
    parsed = 0
    refused = 0
    written = 0
  }
  parsed = 0
  refused = 0
  written = 0
  return turn
}

/** What a task without any device folds with. */
function context() {
  const cache = new StatusCache({ maxEntries: DEVICES, maxBytes: 64 * 1024 * 1024 })
  const store = { getMany: async (keys: readonly string[]) => keys.map(() => undefined) } as unknown as StateStore
  const reads = { maxBytes: 8 * 1024 * 1024, reads: new ReadSize(), restored: false }
  return { partition: 0, store, cache, owner: {}, ...reads }
}

/** Folds one message of each device, and then another; gives the bytes of a status between the two. */
async function fold(first: object, second: object): Promise<number> {
  const turns = new Turns()
  const task = context()
  let bytes = 0
  for (const [batch, said] of [first, second].entries()) {
    const value = Buffer.from(JSON.stringify(said))
    const records = Array.from({ length: DEVICES }, (_, i): LogRecord => {
      return { key: `d${i}`, offset: batch * DEVICES + i, timestamp: 1764000000000 + batch, headers: undefined, value }
    })
    const turn = turnOf(turns)
    await turn.next()
    mostParsed = 0
    const effects = await foldBatch(records, { ...task, turn, batch })
    expect(effects.changelog).toHaveLength(DEVICES)
    bytes ||= effects.changelog[0]?.value?.byteLength ?? 0
  }
  return bytes
}

const metrics = (count: number, value: unknown) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [`metric-${i}`, value]))

it('parses no more cached statuses in a turn of the event loop than its work allows', async () => {
  const bytes = await fold(metrics(100, 'x'.repeat(60)), { one: 1 })
  expect(bytes * DEVICES).toBeGreaterThan(4 * MAX_PARSED_BYTES)
  expect(mostParsed).toBeGreaterThan(0)
  expect(mostParsed).toBeLessThan(MAX_PARSED_BYTES)
})

it('gives no more plain statuses up in a turn of the event loop than its work allows', async () => {
  const bytes = await fold(metrics(64, 1), { one: 'text' })
  expect(bytes * DEVICES).toBeGreaterThan(2 * MAX_PARSED_BYTES)
  expect(mostParsed).toBeGreaterThan(0)
  expect(mostParsed).toBeLessThan(MAX_PARSED_BYTES)
})

it('refuses no more records in a turn of the event loop than its work allows', async () => {
  const value = Buffer.from('{"half":')
  const records = Array.from({ length: 10 * MAX_REFUSED }, (_, offset): LogRecord => {
    return { key: 'd1', offset, timestamp: 1764000000000, headers: undefined, value }
  })
  const turn = turnOf(new Turns())
  const effects = await foldBatch(records, { ...context(), turn, batch: 1 })
  expect(effects.deadLetters).toHaveLength(records.length)
  expect(mostRefused).toBeGreaterThan(0)
  expect(mostRefused).toBeLessThan(MAX_REFUSED)
})

it('writes to no more attributes in a turn of the event loop than its work allows', async () => {
  const at = 1764000000000
  const attributes = Object.fromEntries(Array.from({ length: 700 }, (_, i) => [`a${i}`, i]))
  const first = { key: 'd1', value: Buffer.from('{"x":1}'), timestamp: at, headers: undefined }
  const replace = writeRecord('d1', { kind: 'attributes', operation: 'replace', attributes, ifMatch: undefined }, at)
  const merges = Array.from({ length: 200 }, (_, i) => {
    return writeRecord('d1', { kind: 'attributes', operation: 'merge', attributes: { a0: i }, ifMatch: undefined }, at)
  })
  const records = [first, replace, ...merges].map((record, offset): LogRecord => ({ ...record, offset }))
  const turn = turnOf(new Turns())
  mostWritten = 0
  const effects = await foldBatch(records, { ...context(), turn, batch: 1 })
  expect(effects.decisions.filter(({ outcome }) => outcome === 'applied')).toHaveLength(201)
  expect(mostWritten).toBeGreaterThan(0)
  expect(mostWritten).toBeLessThan(MAX_WRITTEN)
})
