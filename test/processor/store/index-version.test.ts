import { createHash } from 'node:crypto'
import { MemoryLevel } from 'memory-level'
import pino from 'pino'
import { expect, it } from 'vitest'
import type { Json } from '../../../processor/contract/json.ts'
import { INDEX_VERSION } from '../../../processor/store/index-entries.ts'
import type { Database } from '../../../processor/store/level-store.ts'
import { LevelStores } from '../../../processor/store/level-stores.ts'

/** Of what each version makes of these statuses; a new version is put beside the old ones. */
const SHA_256: Readonly<Record<number, string>> = {
  5: '744d3ab323def708e1f720b2ca6467570488c4f743cbe0613f41ac7fc6c412b5',
}

const names = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`a${i}`, i]))
const texts = (count: number) => Array.from({ length: count }, (_, i) => `e${i}`)

/** What is special of each device: of its state, of when it was last seen, of its attributes. */
const STATUSES: readonly { readonly state?: Json; readonly lastSeenAt?: Json; readonly attributes?: Json }[] = [
  {},
  { state: 'offline', lastSeenAt: '2026-11-24T10:19:59.999Z' },
  { state: 'unknown', lastSeenAt: '2025-01-01T00:00:00.000Z', attributes: {} },
  { attributes: { site: 'k1', size: 5, on: true, off: false, none: null, part: 1.5, small: 1e-7 } },
  { state: 'offline', attributes: { site: 'k1', tags: ['a', 'b', 'a'], empty: [], mixed: ['a', 1, { b: 1 }] } },
  { attributes: { nested: { b: 1 }, 'dotted.name': 'x', quoted: 'a"b\\c', other: 'Zürich \u{1f600}', '': 'no name' } },
  // At the bounds of values, names, attributes and elements, and below them.
  ...[47, 48, 49, 61, 62, 63, 64, 65, 300].map((length) => ({ attributes: { long: 'x'.repeat(length) } })),
  ...[63, 64, 65].map((length) => ({ attributes: { ['n'.repeat(length)]: 1 } })),
  ...[12, 13, 16, 17].map((count) => ({ attributes: names(count) })),
  ...[12, 13, 16, 17].map((count) => ({ attributes: { tags: texts(count) } })),
  { state: 'asleep' },
  { state: 5, attributes: { site: 'k1' } },
  { lastSeenAt: '2026-11-24' },
  { lastSeenAt: null },
  { attributes: ['no', 'object'] },
]

/** All entries and counts in a database, as keys and values. */
async function indexOf(statuses: readonly object[]): Promise<string[]> {
  const db = new MemoryLevel<string, Buffer>({ keyEncoding: 'utf8', valueEncoding: 'buffer' }) as unknown as Database
  const identity = { cluster: 'c', telemetry: 't', status: 's', partitions: 1 }
  await using stores = await LevelStores.open(db, { identity, logger: pino({ level: 'silent' }) })
  const store = await stores.store(0)
  const writes = statuses.map((status, i): [string, Buffer] => {
    return [`d${i}`, Buffer.from(JSON.stringify({ deviceId: `d${i}`, ...status }))]
  })
  // No status at all, and one of another device, are what other programs write.
  writes.push(['no-json', Buffer.from('no JSON')], ['other', Buffer.from('{"deviceId":"another"}')])
  await store.commit(new Map(writes), { input: 1, changelog: 1, whole: true, since: 1 }, writes.length)
  const entries = await db.iterator().all()
  return entries.filter(([key]) => /^[ic]/.test(key)).map(([key, value]) => `${key} ${value.toString()}`)
}

it('the index of a store is what its version says', async () => {
  const statuses = STATUSES.map(({ state = 'online', lastSeenAt = '2026-11-24T10:00:00.000Z', attributes }) => {
    return { connectivity: { state }, lastSeenAt, attributes }
  })
  const index = await indexOf(statuses)
  expect(index.length).toBeGreaterThan(100)
  const made = createHash('sha256').update(index.join('\n')).digest('hex')
  const whatToDo =
    'entries or counts are others: raise INDEX_VERSION in processor/contract/index-entries.ts, so that stores build ' +
    `their indexes anew (a search in an old one misses devices), and put here { [new version]: '${made}' }`
  expect(made, whatToDo).toBe(SHA_256[INDEX_VERSION])
})
