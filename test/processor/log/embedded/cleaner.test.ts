import { describe, expect, test, vi } from 'vitest'
import type { EmbeddedLog } from '../../../../processor/log/embedded/embedded-log.ts'
import { storageKey } from '../../../../processor/log/embedded/storage.ts'
import type { Claim, LogRecord, NewRecord } from '../../../../processor/log/log.ts'
import { read, TestMember } from '../../../contract/log-member.ts'
import { record, sized, text } from '../../../contract/log-records.ts'
import { dump, failingDatabase, folder, openLog as openWith } from './folder.ts'

// Readers must see what the database holds, not what is in memory.
const openLog = (path: string, options: Parameters<typeof openWith>[1]) =>
  openWith(path, { ...options, tailRecords: 0 })

const CLEAN_ALL = { minDirtyBytes: 0 }
const tombstone = (key: string): NewRecord => ({ key, value: null, timestamp: 0 })

async function claimOf(log: EmbeddedLog): Promise<{ claim: Claim; member: TestMember }> {
  const member = new TestMember('m').join(log)
  await vi.waitFor(() => expect(member.claims.size).toBe(1))
  return { claim: member.claims.get(0) as Claim, member }
}

function state(records: readonly LogRecord[]): Map<string | null, string> {
  const last = new Map<string | null, string>()
  for (const r of records) {
    if (r.value === null) last.delete(r.key)
    else last.set(r.key, text(r))
  }
  return last
}

/** Park-Miller: the same numbers in every run. */
function random(seed: number): (below: number) => number {
  let x = seed
  return (below) => {
    x = (x * 48_271) % 0x7fffffff
    return x % below
  }
}

describe('compaction', () => {
  test('keeps the last record of each key at its offset, and the end', async () => {
    const log = await openLog(await folder(), { compaction: CLEAN_ALL })
    const { claim } = await claimOf(log)
    for (let round = 0; round < 50; round++) {
      const changelog = Array.from({ length: 10 }, (_, i) => record(`key-${i}`, `${round}`))
      await claim.commit({ changelog, deadLetters: [], next: round })
    }
    await log.tidy()
    const left = await dump(log, 'status')
    expect(await log.bounds({ topic: 'status', index: 0 })).toEqual({ start: 0, end: 500 })
    // The last batch is never touched, and what it supersedes is known only in the next pass.
    expect(left.length).toBe(20)
    expect(left.map((r) => r.offset)).toEqual(Array.from({ length: 20 }, (_, i) => 480 + i))
    expect(state(left)).toEqual(new Map(Array.from({ length: 10 }, (_, i) => [`key-${i}`, '49'])))
  })

  test('keeps tombstones for their time, and then drops them', async () => {
    let now = 1_000_000
    const compaction = { ...CLEAN_ALL, deleteRetentionMs: 1000 }
    const path = await folder()
    const log = await openLog(path, { compaction, now: () => now })
    const { claim } = await claimOf(log)
    const commit = (changelog: NewRecord[]) => claim.commit({ changelog, deadLetters: [], next: 0 })
    const values = async () => (await dump(log, 'status')).map((r) => `${r.key}:${r.value === null ? 'gone' : text(r)}`)
    await commit([record('a', '1'), record('b', '1')])
    await commit([tombstone('a')])
    await commit([record('z', '1')])
    await log.tidy()
    expect(await values()).toEqual(['b:1', 'a:gone', 'z:1'])
    now += 999
    await commit([record('z', '2')])
    await log.tidy()
    expect(await values()).toEqual(['b:1', 'a:gone', 'z:1', 'z:2'])
    now += 2
    await commit([record('z', '3')])
    await log.tidy()
    expect(await values()).toEqual(['b:1', 'z:2', 'z:3'])
  })

  test('never changes what a reader makes of the log, whenever it stops and the log is opened again', async () => {
    const path = await folder()
    const pick = random(42)
    const expected = new Map<string, string>()
    const options = {
      segmentBytes: 20_000,
      compaction: { minDirtyBytes: 30_000, maxKeys: 60, deleteRetentionMs: 1e12 },
    }
    let end = 0
    for (let life = 0; life < 6; life++) {
      const log = await openLog(path, options)
      const { claim, member } = await claimOf(log)
      expect(claim.start.changelogEnd).toBe(end)
      expect(state(await dump(log, 'status'))).toEqual(expected)
      for (let round = 0; round < 60; round++) {
        const changelog = Array.from({ length: 1 + pick(60) }, (_, i) => {
          const key = `key-${pick(200)}`
          const value = `${life}/${round}/${i}`.padEnd(50)
          if (pick(10) === 0) expected.delete(key)
          else expected.set(key, value)
          return expected.has(key) ? record(key, value) : tombstone(key)
        })
        end = (await claim.commit({ changelog, deadLetters: [], next: 0 })).changelogEnd
      }
      // Closing stops a pass wherever it is.
      const tidying = log.tidy()
      for (let turn = pick(40); turn > 0; turn--) await new Promise((resolve) => setImmediate(resolve))
      await member.leave()
      await Promise.all([log[Symbol.asyncDispose](), tidying.catch(() => undefined)])
    }
    const log = await openLog(path, options)
    await log.tidy()
    const left = await dump(log, 'status')
    expect(state(left)).toEqual(expected)
    expect(left.length).toBeLessThan(1000)
    expect(end).toBeGreaterThan(5000)
  })

  test('does not disturb a follower in the middle, which never sees an older value after a newer one', async () => {
    const log = await openLog(await folder(), { compaction: CLEAN_ALL })
    const { claim } = await claimOf(log)
    const rounds = 400
    for (let round = 0; round < rounds; round++) {
      const changelog = Array.from({ length: 50 }, (_, i) => record(`key-${i}`, `${round}`.padEnd(40)))
      await claim.commit({ changelog, deadLetters: [], next: round })
    }
    const seen = new Map<string | null, number>()
    let batches = 0
    let cleaned = Promise.resolve()
    const stop = new AbortController()
    const at = { topic: 'status', index: 0 } as const
    for await (const batch of log.follow(at, 0, { maxRecords: 100, maxBytes: 10_000 }, stop.signal)) {
      for (const r of batch.records) {
        const value = Number(text(r))
        expect(value).toBeGreaterThan(seen.get(r.key) ?? -1)
        seen.set(r.key, value)
      }
      if (++batches === 5) cleaned = log.tidy()
      if (batches > 5 && batches < 20) await new Promise((resolve) => setImmediate(resolve))
      if (batches === 20) await cleaned
      if (batch.next >= batch.end) break
    }
    expect(new Set(seen.values())).toEqual(new Set([rounds - 1]))
    expect((await read(log, 'status', 0, 0, rounds * 50)).length).toBe(100)
  })

  test('leaves gaps after large batches that a follower gets over', async () => {
    const path = await folder()
    const log = await openLog(path, { compaction: CLEAN_ALL })
    const { claim } = await claimOf(log)
    const commit = (changelog: NewRecord[]) => claim.commit({ changelog, deadLetters: [], next: 0 })
    // So many that a follower has learnt how large batches are before it comes to the gap.
    for (let i = 0; i < 12; i++) await commit([sized(`key-${i}`, 400_000)])
    for (let i = 0; i < 3; i++) await commit([sized('key', 400_000)])
    // Alone larger than what is decoded in one go.
    await commit([sized('largest', 1_000_000)])
    for (let i = 0; i < 2; i++) await commit([sized('key', 400_000)])
    await log.tidy()
    const offsets = (await dump(log, 'status')).map((r) => r.offset)
    expect(offsets).toEqual([...Array.from({ length: 12 }, (_, i) => i), 15, 16, 17])
    for (let from = 0; from < 18; from++) {
      const left = await read(log, 'status', 0, from, 18)
      expect(left.map((r) => r.offset)).toEqual(offsets.filter((offset) => offset >= from))
    }
  })

  test('does not touch what a write has left whose outcome is not known', async () => {
    const { database, failWrites } = failingDatabase()
    const path = await folder()
    // So much never is free: the log does not recover while compaction works.
    const log = await openLog(path, { compaction: CLEAN_ALL, database, minFreeBytes: Number.MAX_SAFE_INTEGER })
    const { claim, member } = await claimOf(log)
    for (const key of ['a', 'b']) await claim.commit({ changelog: [record(key, '1')], deadLetters: [], next: 0 })
    failWrites(() => true)
    // More than one batch takes, so that one of those that are not known is not the last.
    const changelog = [record('c', '1'), { key: 'd', value: Buffer.alloc(600_000), timestamp: 0 }]
    await expect(claim.commit({ changelog, deadLetters: [], next: 0 })).rejects.toMatchObject({ code: 'LOG_NO_SPACE' })
    failWrites(undefined)
    await log.tidy()
    expect(await log.bounds({ topic: 'status', index: 0 })).toEqual({ start: 0, end: 2 })
    expect((await dump(log, 'status')).map((r) => r.key)).toEqual(['a', 'b'])
    await member.leave()
    await log[Symbol.asyncDispose]()
    const again = await openLog(path, {})
    expect((await dump(again, 'status')).map((r) => r.key)).toEqual(['a', 'b', 'c', 'd'])
  })

  test('ends, too, after a pass whose last write failed and is on the disk all the same', async () => {
    const { database, failWrites } = failingDatabase()
    const log = await openLog(await folder(), { compaction: CLEAN_ALL, database })
    const { claim } = await claimOf(log)
    const commit = (key: string) => claim.commit({ changelog: [record(key, '1')], deadLetters: [], next: 0 })
    for (const key of ['a', 'b', 'c']) await commit(key)
    await log.tidy()
    for (const key of ['d', 'e']) await commit(key)
    const cleaned = storageKey('cleaned', 'status', 0)
    failWrites((keys) => keys.some((key) => key.equals(cleaned)))
    await expect(log.tidy()).rejects.toThrow('on the disk all the same')
    failWrites(undefined)
    await log.tidy()
    expect((await dump(log, 'status')).map((r) => r.key)).toEqual(['a', 'b', 'c', 'd', 'e'])
  })

  test('starts by itself when enough is dirty', async () => {
    const options = { segmentBytes: 10_000, compaction: { minDirtyBytes: 50_000 } }
    const log = await openLog(await folder(), options)
    const { claim } = await claimOf(log)
    for (let round = 0; round < 40; round++) {
      const changelog = Array.from({ length: 50 }, (_, i) => record(`key-${i}`, `${round}`.padEnd(40)))
      await claim.commit({ changelog, deadLetters: [], next: round })
    }
    await vi.waitFor(async () => expect((await dump(log, 'status')).length).toBeLessThan(1500))
  })
})
