import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { RocksLevel } from 'rocksdb-level'
import { expect, it } from 'vitest'
import { LevelStores } from '../../../processor/store/level-stores.ts'

const IDENTITY = { cluster: 'c', telemetry: 't', status: 's', partitions: 1 }
const DEVICES = 4_000
/** Of a device that moves: an entry that goes, and one that comes. */
const ENTRIES = 2

const at = (input: number) => ({ input, changelog: input, whole: true, since: 0 })

it('a commit of many devices that move in the index is put together in several turns of the event loop', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-store-'))
  const db = new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
  const stores = await LevelStores.open(db, { identity: IDENTITY, logger: pino({ enabled: false }) })
  const store = await stores.store(0)
  const ids = Array.from({ length: DEVICES }, (_, i) => `d${i}`)
  const writes = new Map(ids.map((id) => [id, Buffer.from('{}')]))
  const moved = (from: string, to: string) =>
    ids.map((deviceId) => {
      const place = { state: 'online', attributes: undefined }
      return { deviceId, before: { ...place, lastSeenAt: from }, after: { ...place, lastSeenAt: to } }
    })
  await store.commit(new Map(), at(0), 0, [])
  expect(await store.buildIndex()).toBe(true)
  let [all, here, most] = [0, 0, 0]
  const batch = db.batch.bind(db) as () => ReturnType<typeof db.batch>
  const counted = () => {
    const made = batch()
    for (const name of ['put', 'del'] as const) {
      const original = made[name].bind(made) as (...of: unknown[]) => unknown
      Object.assign(made, {
        [name]: (...of: unknown[]) => {
          if (here === 0) setImmediate(() => (here = 0))
          all++
          most = Math.max(most, ++here)
          return original(...of)
        },
      })
    }
    return made
  }
  Object.assign(db, { batch: counted })
  await store.commit(writes, at(1), 0, moved('2026-11-24T10:00:00.000Z', '2026-11-24T11:00:00.000Z'))
  expect(all).toBeGreaterThan((1 + ENTRIES) * DEVICES)
  expect(most).toBeLessThan((1 + ENTRIES) * DEVICES)
  expect((await store.getMany(['d0', `d${DEVICES - 1}`])).map(String)).toEqual(['{}', '{}'])
  expect(store.checkpoint).toEqual(at(1))
  await stores[Symbol.asyncDispose]()
  await rm(folder, { recursive: true })
})
