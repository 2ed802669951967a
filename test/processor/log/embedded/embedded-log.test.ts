import { readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { RocksLevel } from 'rocksdb-level'
import { describe, expect, test, vi } from 'vitest'
import { FencedError, OffsetOutOfRangeError, RetryableError } from '../../../../processor/contract/errors.ts'
import { storageKey } from '../../../../processor/log/embedded/storage.ts'
import type { Claim, NewRecord } from '../../../../processor/log/log.ts'
import { aborted } from '../../../../processor/runtime/pause.ts'
import { read, TestMember } from '../../../contract/log-member.ts'
import { numbered, record, sized, text } from '../../../contract/log-records.ts'
import { failingDatabase, folder, openLog } from './folder.ts'

/** Each batch is a segment of its own. */
const SEGMENTS = { segmentBytes: 1 }

describe('embedded log', () => {
  test('gives the same from memory and from the database, from any offset and within any limits', async () => {
    const path = await folder()
    const total = 20_000
    let log = await openLog(path)
    for (let from = 0; from < total; from += 500) await log.append('telemetry', numbered(from, 500))
    for (const reopened of [false, true]) {
      if (reopened) {
        await log[Symbol.asyncDispose]()
        log = await openLog(path)
      }
      const all = await read(log, 'telemetry', 0, 0, total)
      expect(all.map((r) => r.offset)).toEqual(Array.from({ length: total }, (_, i) => i))
      expect(all.every((r) => text(r) === `${r.offset}`)).toBe(true)
      await fc.assert(
        fc.asyncProperty(
          fc.nat(total - 1),
          fc.integer({ min: 1, max: 900 }),
          fc.nat(4000),
          async (from, maxRecords, maxBytes) => {
            const until = Math.min(total, from + 1500)
            const got = await read(log, 'telemetry', 0, from, until, { maxRecords, maxBytes })
            expect(got.slice(0, until - from).map(text)).toEqual(all.slice(from, until).map(text))
          },
        ),
        { numRuns: 20 },
      )
    }
  })

  test('refuses another number of partitions, and says which it has', async () => {
    const path = await folder()
    await (await openLog(path, { partitions: 8 }))[Symbol.asyncDispose]()
    const refused = openLog(path, { partitions: 12 })
    await expect(refused).rejects.toMatchObject({
      name: 'ConfigurationError',
      code: 'LOG_MISMATCH',
      message: expect.stringMatching(/8 partitions, not 12.*PARTITIONS=8/),
    })
    expect((await openLog(path, { partitions: 8 })).identity.partitions).toBe(8)
  })

  test.each(['_open', '_put'] as const)(
    'says that it is space that a start on a full volume lacks, at %s',
    async (step) => {
      class Full extends RocksLevel<Buffer, Buffer> {}
      Full.prototype[step] = () => {
        throw Object.assign(new Error('No space left on device'), { code: 'LEVEL_NO_SPACE' })
      }
      const database = (path: string) => new Full(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
      const path = await folder()
      await expect(openLog(path, { database })).rejects.toMatchObject({
        code: 'FOLDER_UNAVAILABLE',
        message: expect.stringMatching(`${path} .*No space left on device.*: free space on its volume`),
      })
    },
  )

  test('says that it is open files that a start lacks', async () => {
    class Many extends RocksLevel<Buffer, Buffer> {
      override _open(): Promise<void> {
        const message = 'While open a file for appending: 000004.log: Too many open files'
        return Promise.reject(Object.assign(new Error(message), { code: 'LEVEL_IO_ERROR' }))
      }
    }
    const database = (path: string) => new Many(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    const refused = openLog(await folder(), { database })
    await expect(refused).rejects.toThrow(/Too many open files\): raise the limit of open files \(ulimit -n\)$/)
  })

  test('tells damage of its own from damage of a store, for which the store would be wiped', async () => {
    // Batches of closed segments are not read when the log is opened.
    const path = await folder()
    const first = await openLog(path, SEGMENTS)
    for (let from = 0; from < 30; from += 10) await first.append('telemetry', numbered(from, 10))
    await first[Symbol.asyncDispose]()
    const db = new RocksLevel<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
    await db.put(storageKey('batch', 'telemetry', 0, 10), Buffer.from('no batch'))
    await db.close()
    const log = await openLog(path, SEGMENTS)
    expect(await read(log, 'telemetry', 0, 20, 30)).toHaveLength(10)
    await expect(read(log, 'telemetry', 0, 0, 30)).rejects.toMatchObject({
      name: 'LogCorruptedError',
      code: 'LOG_CORRUPTED',
    })
  })

  test('ends a member whose owner reads what is not there: it keeps all that is not processed', async () => {
    const log = await openLog(await folder())
    const member = new TestMember('m', {
      active: async ({ partition }) => void (await read(log, 'telemetry', partition, 10, 20)),
    }).join(log)
    await vi.waitFor(() => expect(member.outcome).toBeInstanceOf(OffsetOutOfRangeError))
  })

  test.each<[string, (path: string) => Promise<void>]>([
    ['its database', (path) => writeFile(join(path, 'CURRENT'), 'nonsense\n')],
    ['what names its files, gone,', (path) => without(path, /^CURRENT$|^\d+\.log$/)],
    ['the list of its files, gone,', (path) => without(path, /^MANIFEST-/)],
    [
      'its last batch',
      async (path) => {
        const db = new RocksLevel<Buffer, Buffer>(path, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
        await db.put(storageKey('batch', 'telemetry', 0, 0), Buffer.from('no batch'))
        await db.close()
      },
    ],
  ])('refuses a folder of which %s is damaged, naming it', async (_, damage) => {
    const path = await folder()
    const first = await openLog(path)
    await first.append('telemetry', numbered(0, 10))
    await first[Symbol.asyncDispose]()
    await damage(path)
    await expect(openLog(path)).rejects.toMatchObject({
      name: 'ConfigurationError',
      code: 'LOG_CORRUPTED',
      message: expect.stringContaining(`the log in ${path} cannot be opened`),
    })
  })

  test('refuses a folder that is held, naming the folder and the holder', async () => {
    const path = await folder()
    await openLog(path)
    await expect(openLog(path)).rejects.toMatchObject({
      name: 'ConfigurationError',
      code: 'STORE_LOCKED',
      message: expect.stringMatching(new RegExp(`${path}.*${process.pid}.*DATA_DIR`)),
    })
  })

  test('refuses a folder that cannot be', async () => {
    const path = join(await folder(), 'file')
    await writeFile(path, 'not a folder')
    await expect(openLog(path)).rejects.toMatchObject({
      name: 'ConfigurationError',
      code: 'FOLDER_UNAVAILABLE',
      message: expect.stringContaining(path),
    })
  })

  test('reads no more at first of large records that wait than it will read later', async () => {
    const path = await folder()
    const size = 800 * 1024
    {
      await using log = await openLog(path)
      for (let i = 0; i < 12; i++) await log.append('telemetry', [sized('k', size)])
    }
    const limits: number[] = []
    const database = (at: string) => {
      const db = new RocksLevel<Buffer, Buffer>(at, { keyEncoding: 'buffer', valueEncoding: 'buffer' })
      const iterator = db.iterator.bind(db) as (options: { limit?: number }) => unknown
      const watched = (options: { limit?: number }) => {
        limits.push(options.limit ?? 0)
        return iterator(options)
      }
      return Object.assign(db, { iterator: watched as never })
    }
    const log = await openLog(path, { database })
    limits.length = 0
    expect(await read(log, 'telemetry', 0, 0, 12)).toHaveLength(12)
    // Two entries, each of one record.
    expect(Math.max(...limits)).toBe(2)
  })

  test('rejects appends beyond the bound of its queue, and keeps those before', async () => {
    const log = await openLog(await folder(), { maxQueuedBytes: 10_000 })
    const value = Buffer.alloc(3000)
    const calls = Array.from({ length: 8 }, () => log.append('telemetry', [{ key: 'k', value, timestamp: 1 }]))
    const results = await Promise.allSettled(calls)
    const kept = results.filter((r) => r.status === 'fulfilled').length
    expect(kept).toBe(3)
    const reasons = results.flatMap((r) => (r.status === 'rejected' ? [r.reason] : []))
    for (const reason of reasons) expect(reason).toMatchObject({ name: 'RetryableError', code: 'LOG_UNAVAILABLE' })
    expect((await log.bounds({ topic: 'telemetry', index: 0 })).end).toBe(kept)
    await log.append('telemetry', [record('k', 'again')])
  })

  test('refuses a record that is too large, and nothing else of it', async () => {
    const log = await openLog(await folder())
    const large: NewRecord[] = [record('a', 'b'), { key: 'k', value: Buffer.alloc(2 << 20), timestamp: 1 }]
    await expect(log.append('telemetry', large)).rejects.toMatchObject({ code: 'RECORD_TOO_LARGE' })
    await expect(log.append('telemetry', [record('x'.repeat(70_000), '')])).rejects.toMatchObject({
      code: 'RECORD_TOO_LARGE',
    })
    expect((await log.bounds({ topic: 'telemetry', index: 0 })).end).toBe(0)
    await log.append('dead-letters', [record('x'.repeat(65_535), '')])
  })

  test('gives a partition on when its role has ended, if it ends in time', async () => {
    const log = await openLog(await folder(), { partitions: 8, standbys: 0 })
    let running = 0
    let most = 0
    const active = async (_claim: Claim, signal: AbortSignal) => {
      most = Math.max(most, ++running)
      await aborted(signal)
      // The role takes its time to end.
      for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
      running--
    }
    const one = new TestMember('one', { active }).join(log)
    await vi.waitFor(() => expect(one.claims.size).toBe(8))
    const other = new TestMember('other', { active }).join(log)
    await vi.waitFor(() => expect([one.claims.size, other.claims.size]).toEqual([4, 4]))
    expect(most).toBe(8)
  })

  test('gives a partition on when its role does not end in time, and fences that role', async () => {
    const log = await openLog(await folder(), { revokeTimeoutMs: 20, standbys: 0 })
    const release = new AbortController()
    const stuck = new TestMember('stuck', { active: () => aborted(release.signal) }).join(log)
    await vi.waitFor(() => expect(stuck.claims.size).toBe(1))
    const claim = stuck.claims.get(0) as Claim
    const left = stuck.leave()
    const heir = new TestMember('heir').join(log)
    await vi.waitFor(() => expect(heir.claims.size).toBe(1))
    await expect(claim.commit({ changelog: [record('k', 'v')], deadLetters: [], next: 1 })).rejects.toThrow(FencedError)
    expect((await log.bounds({ topic: 'status', index: 0 })).end).toBe(0)
    release.abort()
    await left
    expect(stuck.outcome).toBe('left')
    await heir.leave()
  })

  test('takes a member back that was evicted while what it owned was being taken from it', async () => {
    const { database, failWrites } = failingDatabase()
    const log = await openLog(await folder(), { standbys: 0, database, minFreeBytes: 0 })
    const release = Promise.withResolvers<void>()
    const member = new TestMember('m', { active: (_claim, signal) => aborted(signal).then(() => release.promise) })
    member.join(log)
    await vi.waitFor(() => expect(member.claims.size).toBe(1))
    const before = member.claims.get(0) as Claim
    failWrites(() => true)
    await expect(before.commit({ changelog: [], deadLetters: [], next: 0 })).rejects.toThrow(RetryableError)
    failWrites(undefined)
    log.evict('m')
    release.resolve()
    await vi.waitFor(() => expect(member.claims.get(0)?.epoch).toBeGreaterThan(before.epoch))
    await member.leave()
    expect(member.outcome).toBe('left')
  })

  test('asks for no more records while many wait, until they are processed', async () => {
    const log = await openLog(await folder(), { standbys: 0, tailRecords: 8 })
    const member = new TestMember('m').join(log)
    await vi.waitFor(() => expect(member.claims.size).toBe(1))
    const claim = member.claims.get(0) as Claim
    await claim.commit({ changelog: [], deadLetters: [], next: 0 })
    expect(log.relief).toBeUndefined()
    await log.append('telemetry', numbered(0, 10))
    const { relief } = log
    expect(relief).toBeDefined()
    await claim.commit({ changelog: [], deadLetters: [], next: 10 })
    await relief
    expect(log.relief).toBeUndefined()
    await member.leave()
  })

  test('takes an instance once', async () => {
    const log = await openLog(await folder())
    const first = new TestMember('same').join(log)
    const second = new TestMember('same').join(log)
    await vi.waitFor(() => expect(second.outcome).toMatchObject({ code: 'INVALID_CONFIGURATION' }))
    await vi.waitFor(() => expect(first.claims.size).toBe(1))
    await first.leave()
  })

  test('that is closed ends all who use it, twice', async () => {
    const log = await openLog(await folder())
    const member = new TestMember('m').join(log)
    await vi.waitFor(() => expect(member.claims.size).toBe(1))
    const closed = { name: RetryableError.name, code: 'LOG_CLOSED' }
    const following = expect(read(log, 'telemetry', 0, 0, 1)).rejects.toMatchObject(closed)
    await Promise.all([log[Symbol.asyncDispose](), log[Symbol.asyncDispose]()])
    await following
    await expect(log.append('telemetry', [record('a', '1')])).rejects.toMatchObject(closed)
    await vi.waitFor(() => expect(member.outcome).toMatchObject(closed))
    expect(member.claims.size).toBe(0)
  })
})

async function without(path: string, names: RegExp): Promise<void> {
  for (const name of await readdir(path)) if (names.test(name)) await rm(join(path, name))
}
