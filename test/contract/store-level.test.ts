import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { RocksLevel } from 'rocksdb-level'
import { describe, expect, it } from 'vitest'
import { RetryableError } from '../../processor/contract/errors.ts'
import type { LogIdentity } from '../../processor/log/log.ts'
import type { Database } from '../../processor/store/level-store.ts'
import { LevelStores } from '../../processor/store/level-stores.ts'
import { type StoreWorld, storeContract } from './store.ts'

const IDENTITY: LogIdentity = { cluster: 'c', telemetry: 't', status: 's', partitions: 8 }

class RocksWorld implements StoreWorld {
  readonly folder: string
  readonly lines: string[] = []
  db: Database
  stores: LevelStores

  constructor(folder: string, db: Database, stores: LevelStores) {
    this.folder = folder
    this.db = db
    this.stores = stores
  }

  static async create(): Promise<RocksWorld> {
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-store-'))
    const db = databaseIn(folder)
    return new RocksWorld(folder, db, await open(db, IDENTITY, []))
  }

  open(partition: number) {
    return this.stores.store(partition)
  }

  async restart(identity = IDENTITY) {
    await this.stores[Symbol.asyncDispose]()
    this.db = databaseIn(this.folder)
    this.stores = await open(this.db, identity, this.lines)
  }

  async [Symbol.asyncDispose]() {
    await this.stores[Symbol.asyncDispose]()
    await rm(this.folder, { recursive: true })
  }
}

function noSpace(): Promise<never> {
  return Promise.reject(new Error('no space left'))
}

function databaseIn(folder: string): Database {
  return new RocksLevel<string, Buffer>(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' })
}

function open(db: Database, identity: LogIdentity, lines: string[]): Promise<LevelStores> {
  return LevelStores.open(db, { identity, logger: pino({}, { write: (line) => lines.push(line) }) })
}

storeContract('LevelStore over rocksdb-level', () => RocksWorld.create())

describe('LevelStores', () => {
  const checkpoint = { input: 1, changelog: 1, whole: true, since: 1 }

  it.each([
    ['cluster', { ...IDENTITY, cluster: 'another' }],
    ['telemetry', { ...IDENTITY, telemetry: 'another' }],
    ['status', { ...IDENTITY, status: 'another' }],
    ['cluster and partitions', { ...IDENTITY, cluster: 'another', partitions: 9 }],
  ])('empties a store of another %s, and says why', async (name, identity) => {
    await using world = await RocksWorld.create()
    await (await world.open(0)).commit(new Map([['a', Buffer.from('1')]]), checkpoint, 1)
    await world.restart(identity)
    const store = await world.open(0)
    expect(store.checkpoint).toBeUndefined()
    expect(await store.getMany(['a'])).toEqual([undefined])
    expect(world.lines.join()).toContain(`${name.split(' ')[0]} was`)
  })

  it('refuses the same log with another number of partitions, and keeps the store', async () => {
    await using world = await RocksWorld.create()
    await (await world.open(0)).commit(new Map([['a', Buffer.from('1')]]), checkpoint, 1)
    await world.restart({ ...IDENTITY, partitions: IDENTITY.partitions + 2 })
    await expect(world.open(0)).rejects.toMatchObject({
      name: 'ConfigurationError',
      code: 'LOG_MISMATCH',
      message: expect.stringMatching(/partitions was .* cannot be changed.* another TOPIC_PREFIX/),
    })
    await world.restart()
    expect(await (await world.open(0)).getMany(['a'])).toEqual([Buffer.from('1')])
  })

  it('empties a store whose checkpoint was lost: a wipe that was cut short', async () => {
    await using world = await RocksWorld.create()
    await (await world.open(0)).commit(new Map([['a', Buffer.from('1')]]), checkpoint, 1)
    await world.stores[Symbol.asyncDispose]()
    const db = new RocksLevel<string, Buffer>(world.folder)
    await db.del('m00000')
    await db.close()
    await world.restart()
    expect(await (await world.open(0)).range(undefined, 10)).toEqual([])
  })

  it.each(['before it began', 'after the checkpoint went', 'before the index went'])(
    'makes an end of a wipe that failed %s, before the next write',
    async (when) => {
      await using world = await RocksWorld.create()
      const { db } = world
      const store = await world.open(0)
      const online = { connectivity: { state: 'online' }, lastSeenAt: '2026-11-24T10:00:00.000Z', attributes: { a: 1 } }
      const status = Buffer.from(JSON.stringify(online))
      await store.commit(new Map([['ghost', status]]), checkpoint, 1)
      const [del, clear] = [db.del.bind(db), db.clear.bind(db)]
      if (when === 'before it began') db.del = noSpace
      db.clear = (options?: object) => {
        const passes = when === 'before the index went' && JSON.stringify(options).includes('"d00000:')
        return passes ? clear(options as never) : noSpace()
      }
      await expect(store.wipe()).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
      expect([store.checkpoint, store.count]).toEqual([undefined, 0])
      await expect(store.commit(new Map(), checkpoint, 0)).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' })
      Object.assign(db, { del, clear })
      await store.commit(new Map([['a', status]]), { ...checkpoint, changelog: 2 }, 1)
      expect((await store.range(undefined, 10)).map(([key]) => key)).toEqual(['a'])
      expect([store.count, await store.recount()]).toEqual([1, 1])
      const index = await db.keys({ gte: 'i', lt: 'j' }).all()
      expect(index.filter((key) => key.includes('ghost'))).toEqual([])
      expect(index).not.toEqual([])
      await world.restart()
      expect((await world.open(0)).checkpoint).toMatchObject({ changelog: 2 })
    },
  )

  it('names the partitions it holds', async () => {
    await using world = await RocksWorld.create()
    for (const partition of [7, 2]) await (await world.open(partition)).commit(new Map(), checkpoint, 0)
    await world.restart()
    expect(await world.stores.partitions()).toEqual([2, 7])
  })

  it('answers the other reads of a turn when one meets a damaged key', async () => {
    await using world = await RocksWorld.create()
    const { db } = world
    const [healthy, damaged] = [await world.open(0), await world.open(1)]
    await healthy.commit(new Map([['a', Buffer.from('1')]]), checkpoint, 1)
    await damaged.commit(new Map([['b', Buffer.from('2')]]), checkpoint, 1)
    const getMany = db.getMany.bind(db)
    db.getMany = (keys: string[]) => {
      if (!keys.includes('d00001:x')) return getMany(keys)
      return Promise.reject(Object.assign(new Error('block checksum mismatch'), { code: 'LEVEL_CORRUPTION' }))
    }
    const reads = [healthy.getMany(['a', 'x']), damaged.getMany(['b', 'x']), damaged.getMany(['b'])]
    expect(await Promise.allSettled(reads)).toMatchObject([
      { value: [Buffer.from('1'), undefined] },
      { reason: { code: 'STORE_CORRUPTED' } },
      { value: [Buffer.from('2')] },
    ])
  })

  it('rejects what comes after the close so that it can be tried again elsewhere', async () => {
    await using world = await RocksWorld.create()
    const store = await world.open(0)
    await world.stores[Symbol.asyncDispose]()
    await expect(store.getMany(['a'])).rejects.toBeInstanceOf(RetryableError)
    await expect(store.range(undefined, 1)).rejects.toBeInstanceOf(RetryableError)
    await expect(store.commit(new Map(), checkpoint)).rejects.toBeInstanceOf(RetryableError)
  })
})
