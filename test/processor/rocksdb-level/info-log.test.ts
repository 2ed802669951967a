import { appendFile, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, onTestFinished, test, vi } from 'vitest'
import { RocksLevel } from '../../../processor/rocksdb-level/index.ts'
import { temporaryFolder } from './folder.ts'

const MiB = 1024 * 1024
const LOOK_MS = 60_000

afterEach(() => vi.useRealTimers())

async function opened(location: string): Promise<RocksLevel> {
  const db = new RocksLevel(location)
  onTestFinished(() => db.close())
  await db.open()
  return db
}

test('what RocksDB tells of itself is bounded while a database is open, and goes on', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  const db = await opened(join(await temporaryFolder(), 'db'))
  const file = join(db.location, 'LOG')
  const onDisk = async () => (await stat(file)).blocks * 512
  await appendFile(file, Buffer.alloc(15 * MiB))
  vi.advanceTimersByTime(LOOK_MS)
  await db.put('a', '1')
  await db.flush()
  expect(await onDisk()).toBeGreaterThan(14 * MiB)
  await appendFile(file, Buffer.alloc(2 * MiB))
  vi.advanceTimersByTime(LOOK_MS)
  await vi.waitFor(async () => expect(await onDisk()).toBeLessThan(MiB))
  const { size } = await stat(file)
  await db.put('b', '2')
  await db.flush()
  expect((await stat(file)).size).toBeGreaterThan(size)
  expect(await onDisk()).toBeGreaterThan(0)
  expect(await db.get('b')).toBe('2')
})

test('what it told before is removed when a database is opened, but the last of it', async () => {
  const location = join(await temporaryFolder(), 'db')
  for (let i = 0; i < 3; i++) await (await opened(location)).close()
  await opened(location)
  const logs = async () => (await readdir(location)).filter((name) => name.startsWith('LOG'))
  await vi.waitFor(async () => expect(await logs()).toEqual(['LOG', expect.stringMatching(/^LOG\.old\./)]))
})
