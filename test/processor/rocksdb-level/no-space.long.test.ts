import { execFileSync, spawnSync } from 'node:child_process'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { onTestFinished, test } from 'vitest'
import { RocksLevel } from '../../../processor/rocksdb-level/index.ts'
import { temporaryFolder } from './folder.ts'

const MIB = 1024 * 1024

/** A small disk of its own needs a mount, which only root on Linux may make, and not in every container. */
const canMount =
  process.platform === 'linux' && spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).status === 0
const reason = 'mounting a small disk needs root on Linux'

async function smallDisk(mebibytes: number): Promise<string> {
  const folder = await temporaryFolder()
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', folder])
  onTestFinished(() => void execFileSync('umount', ['-l', folder]))
  return folder
}

async function fill(db: RocksLevel, from: number): Promise<{ acknowledged: number; error: unknown }> {
  for (let n = from; ; n++) {
    try {
      await db.batch([
        { type: 'put', key: `${n}a`, value: 'x'.repeat(10_000) },
        { type: 'put', key: `${n}b`, value: 'y' },
      ])
    } catch (error) {
      return { acknowledged: n, error }
    }
  }
}

// The log meets the full disk before any memtable is full, or a flush of a memtable does.
for (const [what, writeBufferSize] of [
  ['the log', 16 * MIB],
  ['a table file', MIB],
] as const) {
  test(`a disk that fills up under ${what} stops writes until there is space`, async ({ expect, skip }) => {
    skip(!canMount, reason)
    const disk = await smallDisk(48)
    const ballast = join(disk, 'ballast')
    await writeFile(ballast, Buffer.alloc(34 * MIB))
    const db = new RocksLevel(join(disk, 'db'), { writeBufferSize })
    await db.open()

    const { acknowledged, error } = await fill(db, 0)
    expect(error).toMatchObject({ name: 'RocksLevelError', code: 'LEVEL_NO_SPACE', cause: { code: 'ENOSPC' } })
    await expect(db.put('later', 'z')).rejects.toMatchObject({ code: 'LEVEL_NO_SPACE' })
    await expect(db.flush()).rejects.toMatchObject({ code: 'LEVEL_NO_SPACE' })
    expect((await db.keys().all()).length).toBe(acknowledged * 2)

    await rm(ballast)
    await expect.poll(() => db.put('later', 'z').then(() => 'written'), { timeout: 15_000 }).toBe('written')
    await db.close()

    await db.open()
    expect((await db.keys().all()).length).toBe(acknowledged * 2 + 1)
    await db.close()
  })
}

test('a folder on a read-only disk says so, and is not taken for a locked one', async ({ expect, skip }) => {
  skip(!canMount, reason)
  const disk = await smallDisk(8)
  execFileSync('mount', ['-o', 'remount,ro', disk])

  const inside = new RocksLevel(join(disk, 'db'))
  await expect(inside.open()).rejects.toMatchObject({
    cause: { code: 'LEVEL_IO_ERROR', message: expect.stringContaining(`${disk}/db`) },
  })
  const itself = new RocksLevel(disk)
  await expect(itself.open()).rejects.toMatchObject({
    cause: { code: 'LEVEL_IO_ERROR', message: expect.stringContaining(disk) },
  })
})
