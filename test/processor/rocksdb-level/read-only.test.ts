import { join } from 'node:path'
import { onTestFinished, test, vi } from 'vitest'
import * as folder from '../../../processor/rocksdb-level/folder.ts'
import { RocksLevel, type RocksLevelOptions, type RocksOpenOptions } from '../../../processor/rocksdb-level/index.ts'
import { Native } from '../../../processor/rocksdb-level/native.ts'
import { openFiles, temporaryFolder } from './folder.ts'

vi.mock(import('../../../processor/rocksdb-level/folder.ts'), { spy: true })

async function open(path: string, options: RocksLevelOptions<string, string>): Promise<RocksLevel> {
  const db = new RocksLevel(path, options)
  onTestFinished(() => db.close())
  await db.open()
  return db
}

const key = (n: number): string => String(n).padStart(9, '0')

test('shows what was written until it was opened, beside the one that writes, and takes no writes', async ({
  expect,
}) => {
  const path = join(await temporaryFolder(), 'db')
  const writer = await open(path, {})
  await writer.put('table', '1')
  await writer.flush()
  await writer.put('log', '1')
  const reader = await open(path, { readOnly: true })
  await writer.batch([
    { type: 'put', key: 'log', value: '2' },
    { type: 'put', key: 'later', value: '2' },
  ])
  await writer.compactRange()
  expect(await reader.iterator().all()).toEqual([
    ['log', '1'],
    ['table', '1'],
  ])
  for (const write of [
    () => reader.put('a', 'b'),
    () => reader.del('log'),
    () => reader.batch([{ type: 'put', key: 'a', value: 'b' }]),
    () => reader.clear(),
    () => reader.flush(),
  ]) {
    await expect(write()).rejects.toMatchObject({ code: 'LEVEL_READ_ONLY' })
  }
  await reader.close()
  expect(await writer.get('log')).toBe('2')
})

test('can be closed, and opened to write', async ({ expect }) => {
  const path = join(await temporaryFolder(), 'db')
  const db = await open(path, {})
  await db.put('a', '1')
  await db.close()
  await db.open({ readOnly: true } as RocksOpenOptions)
  await expect(db.put('a', '2')).rejects.toMatchObject({ code: 'LEVEL_READ_ONLY' })
  await db.close()
  await db.open()
  await db.put('a', '2')
  const flush = vi.spyOn(Native.prototype, 'flush')
  await db.close()
  expect(flush).toHaveBeenCalled()
})

test('does not make a database', async ({ expect }) => {
  const db = new RocksLevel(join(await temporaryFolder(), 'db'), { readOnly: true })
  await expect(db.open()).rejects.toMatchObject({ cause: { code: 'LEVEL_NOT_FOUND' } })
})

test.runIf(process.platform === 'linux')(
  'keeps no file open when it cannot tell what it has opened',
  async ({ expect }) => {
    const path = join(await temporaryFolder(), 'db')
    const writer = await open(path, {})
    await writer.put('table', '1')
    await writer.close()
    vi.mocked(folder.manifestOf)
      .mockResolvedValueOnce('MANIFEST-000001:1')
      .mockRejectedValueOnce(Object.assign(new Error('EIO: i/o error'), { code: 'EIO' }))
    const reader = new RocksLevel(path, { readOnly: true })
    await expect(reader.open()).rejects.toMatchObject({ cause: { code: 'LEVEL_IO_ERROR' } })
    expect(await openFiles(path)).toEqual([])
  },
)

test('misses nothing, though the writer flushes and compacts while it is opened', async ({ expect }) => {
  const path = join(await temporaryFolder(), 'db')
  const writer = await open(path, { writeBufferSize: 64 * 1024 })
  const value = 'v'.repeat(300)
  let written = 0
  const write = async () => {
    // A few memtables: they are flushed one after the other.
    for (let i = 0; i < 10; i++) {
      const entries = Array.from({ length: 100 }, (_, n) => ({ type: 'put' as const, key: key(written + n), value }))
      await writer.batch(entries)
      written += 100
    }
  }
  for (let round = 0; round < 15; round++) {
    const least = written
    const [reader] = await Promise.all([open(path, { readOnly: true }), write()])
    const keys = await reader.keys().all()
    await reader.close()
    expect(keys.length).toBeGreaterThanOrEqual(least)
    expect(keys).toEqual(Array.from(keys, (_, n) => key(n)))
  }
})
