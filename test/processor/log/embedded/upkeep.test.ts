import pino from 'pino'
import { expect, test, vi } from 'vitest'
import type { EmbeddedLog } from '../../../../processor/log/embedded/embedded-log.ts'
import { EmbeddedStorage, storageKey } from '../../../../processor/log/embedded/storage.ts'
import type { Claim } from '../../../../processor/log/log.ts'
import { TestMember } from '../../../contract/log-member.ts'
import { record } from '../../../contract/log-records.ts'
import { dump, failingDatabase, folder, openLog } from './folder.ts'

const FAILED = 'upkeep failed'

/** Commits one key 20 times in each of three partitions. */
async function commit(log: EmbeddedLog): Promise<void> {
  const member = new TestMember('m').join(log)
  await vi.waitFor(() => expect(member.claims.size).toBe(3))
  for (const claim of member.claims.values() as Iterable<Claim>) {
    for (let i = 0; i < 20; i++) await claim.commit({ changelog: [record('key', `${i}`)], deadLetters: [], next: 0 })
  }
  await member.leave()
}

function telling() {
  const lines: string[] = []
  const logger = pino({}, { write: (line) => lines.push(line) })
  return { logger, told: () => lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg.startsWith(FAILED)) }
}

test('a changelog that cannot be read is not compacted, the others are; the log tells of it once', async () => {
  const path = await folder()
  const before = await openLog(path, { partitions: 3, segmentBytes: 100 })
  await commit(before)
  await before[Symbol.asyncDispose]()
  const storage = await EmbeddedStorage.open(path)
  await storage.write([{ type: 'put', key: storageKey('batch', 'status', 0, 5), value: Buffer.from('rubbish') }])
  await storage.close()
  const { logger, told } = telling()
  const log = await openLog(path, { partitions: 3, compaction: { minDirtyBytes: 0 }, tailRecords: 0, logger })
  for (let round = 0; round < 3; round++) {
    await expect(log.tidy()).rejects.toMatchObject({ code: 'LOG_CORRUPTED' })
  }
  for (const partition of [1, 2]) expect(await dump(log, 'status', partition)).toHaveLength(2)
  expect(told()).toMatchObject([{ topic: 'status', partition: 0 }])
})

test('where retention of a partition fails, that of others and compaction go on', async () => {
  const { database, failWrites } = failingDatabase()
  const { logger, told } = telling()
  let now = 0
  const options = { segmentBytes: 100, retention: { deadLettersMs: 1 }, compaction: { minDirtyBytes: 0 } }
  const log = await openLog(await folder(), {
    partitions: 3,
    ...options,
    tailRecords: 0,
    database,
    logger,
    now: () => now,
  })
  await commit(log)
  for (let i = 0; i < 20; i++) {
    const records = Array.from({ length: 3 }, () => ({ ...record('', `${i}`.padEnd(200)), key: null, timestamp: 0 }))
    await log.append('dead-letters', records)
  }
  now = 1_000
  const prefix = storageKey('segment', 'dead-letters', 0).subarray(0, 4)
  failWrites((keys) => keys.some((written) => written.subarray(0, prefix.length).equals(prefix)))
  await expect(log.tidy()).rejects.toThrow('on the disk all the same')
  failWrites(undefined)
  expect(told()).toMatchObject([{ topic: 'dead-letters', partition: 0 }])
  for (const index of [1, 2]) {
    expect((await log.bounds({ topic: 'dead-letters', index })).start).toBeGreaterThan(15)
    expect(await dump(log, 'status', index)).toHaveLength(2)
  }
  await log.tidy()
})
