import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { RocksLevel } from 'rocksdb-level'
import { describe, expect, it } from 'vitest'
import { RetryableError } from '../../processor/contract/errors.ts'
import type { LogIdentity } from '../../processor/log/log.ts'
import { LevelStores } from '../../processor/store/level.ts'
import { type StoreWorld, storeContract } from './store.ts'

const IDENTITY: LogIdentity = { cluster: 'c', telemetry: 't', status: 's', partitions: 8 }

class RocksWorld implements StoreWorld {
  readonly folder: string
  readonly lines: string[] = []
  stores: LevelStores

  constructor(folder: string, stores: LevelStores) {
    this.folder = folder
    this.stores = stores
  }

  static async create(): Promise<RocksWorld> {
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-store-'))
    return new RocksWorld(folder, await open(folder, IDENTITY, []))
  }

  open(partition: number) {
    return this.stores.store(partition)
  }

  async restart(identity = IDENTITY) {
    await this.stores[Symbol.asyncDispose]()
    this.stores = await open(this.folder, identity, this.lines)
  }

  async [Symbol.asyncDispose]() {
    await this.stores[Symbol.asyncDispose]()
    await rm(this.folder, { recursive: true })
  }
}

function open(folder: string, identity: LogIdentity, lines: string[]): Promise<LevelStores> {
  const logger = pino({}, { write: (line) => lines.push(line) })
  return LevelStores.open(new RocksLevel(folder, { keyEncoding: 'utf8', valueEncoding: 'buffer' }), {
    identity,
    logger,
  })
}

storeContract('LevelStore over rocksdb-level', () => RocksWorld.create())

describe('LevelStores', () => {
  const checkpoint = { input: 1, changelog: 1, whole: true, since: 1 }

  it.each([
    ['cluster', { ...IDENTITY, cluster: 'another' }],
    ['telemetry', { ...IDENTITY, telemetry: 'another' }],
    ['status', { ...IDENTITY, status: 'another' }],
    ['partitions', { ...IDENTITY, partitions: 9 }],
  ])('empties a store of another %s, and says why', async (name, identity) => {
    await using world = await RocksWorld.create()
    await (await world.open(0)).commit(new Map([['a', Buffer.from('1')]]), checkpoint, 1)
    await world.restart(identity)
    const store = await world.open(0)
    expect(store.checkpoint).toBeUndefined()
    expect(await store.getMany(['a'])).toEqual([undefined])
    expect(world.lines.join()).toContain(`${name} was`)
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

  it('names the partitions it holds', async () => {
    await using world = await RocksWorld.create()
    for (const partition of [7, 2]) await (await world.open(partition)).commit(new Map(), checkpoint, 0)
    await world.restart()
    expect(await world.stores.partitions()).toEqual([2, 7])
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
