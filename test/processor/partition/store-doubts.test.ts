import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { RocksLevel } from 'rocksdb-level'
import { expect, it, onTestFinished } from 'vitest'
import type { Database } from '../../../processor/store/level-store.ts'
import { LevelStores } from '../../../processor/store/level-stores.ts'

const IDENTITY = { cluster: 'c', telemetry: 't', status: 's', partitions: 1 }
const REACHED = { input: 1, changelog: 1, whole: true, since: 1 }

/** What is opened in a folder, closed and opened again. */
async function stores(): Promise<() => Promise<{ db: Database; stores: LevelStores }>> {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-store-'))
  let last: LevelStores | undefined
  onTestFinished(async () => {
    await last?.[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
  })
  return async () => {
    await last?.[Symbol.asyncDispose]()
    const db = new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
    last = await LevelStores.open(db, { identity: IDENTITY, logger: pino({ enabled: false }) })
    return { db, stores: last }
  }
}

it('has no checkpoint after a wipe that was cut short, whatever is left of its devices', async () => {
  const open = await stores()
  const { db, stores: before } = await open()
  const store = await before.store(0)
  await store.commit(new Map([['a', Buffer.from('{}')]]), REACHED, 1)
  db.clear = () => Promise.reject(new Error('no space left'))
  await expect(store.wipe()).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
  const { db: left } = await open()
  const keys = (first: string, last: string) => left.keys({ gte: first, lt: last }).all()
  expect([await keys('d', 'e'), await keys('m', 'n')]).toEqual([['d00000:a'], []])
})

it('does not confirm where it stands while it does not know what became of a commit', async () => {
  const open = await stores()
  const { db, stores: before } = await open()
  const store = await before.store(0)
  await store.commit(new Map([['a', Buffer.from('{}')]]), REACHED, 1)
  const batch = db.batch.bind(db) as () => ReturnType<Database['batch']>
  db.batch = (() => {
    const made = batch()
    const write = made.write.bind(made)
    made.write = async () => {
      await write()
      throw new Error('it is on the disk all the same')
    }
    return made
  }) as Database['batch']
  const next = { ...REACHED, input: 2, changelog: 2 }
  await expect(store.commit(new Map([['b', Buffer.from('{}')]]), next, 1)).rejects.toMatchObject({
    code: 'STORE_UNAVAILABLE',
  })
  await store.confirm(1, 1000)
  expect(store.checkpoint).toEqual(REACHED)
  const again = await (await open()).stores.store(0)
  expect([again.checkpoint, again.count]).toEqual([next, 2])
  await again.confirm(2, 1000)
  expect(again.checkpoint).toEqual({ ...next, since: 1000 })
})
