import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { onTestFinished, test } from 'vitest'
import { RocksLevel } from '../../../processor/rocksdb-level/index.ts'
import { temporaryFolder } from './folder.ts'

function startWriter(folder: string): { child: ChildProcess; acknowledged: () => number } {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'write-forever.ts'), folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  let text = ''
  child.stdout?.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  return { child, acknowledged: () => text.split('\n').length - 2 }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10))
}

test('kill -9 loses nothing that was acknowledged, and no batch is there in part', async ({ expect }) => {
  const folder = await temporaryFolder()

  for (let round = 0; round < 3; round++) {
    const { child, acknowledged } = startWriter(folder)
    await until(() => acknowledged() >= 200)
    child.kill('SIGKILL')
    await once(child, 'close')

    const db = new RocksLevel(folder)
    const keys = await db.keys().all()
    const last = acknowledged()
    const batches = Map.groupBy(keys, (key) => key.slice(0, 6))
    for (let n = 0; n <= last; n++) expect(batches.get(String(n).padStart(6, '0'))?.length, `batch ${n}`).toBe(20)
    for (const [n, members] of batches) expect(members.length, `batch ${n}`).toBe(20)
    await db.close()
  }
})

/** Of a process that writes there. */
async function heldFolder() {
  const folder = await temporaryFolder()
  const { child, acknowledged } = startWriter(folder)
  await until(() => acknowledged() >= 1)
  return { folder, child }
}

/** Once its holder was killed it can be opened. */
async function expectFree(holder: ChildProcess, folder: string) {
  holder.kill('SIGKILL')
  await once(holder, 'close')
  const db = new RocksLevel(folder)
  await db.open()
  await db.close()
}

test('a folder another process holds says which', async ({ expect }) => {
  const { folder, child } = await heldFolder()

  await expect(new RocksLevel(folder).open()).rejects.toMatchObject({
    code: 'LEVEL_DATABASE_NOT_OPEN',
    cause: {
      code: 'LEVEL_LOCKED',
      message: `The database ${folder} is held by process ${child.pid}`,
      cause: { message: expect.stringContaining('LOCK') },
    },
  })

  await expectFree(child, folder)
})

test.runIf(process.platform === 'linux')(
  'a folder another process holds is not opened when its LOCK was removed',
  async ({ expect }) => {
    const { folder, child } = await heldFolder()
    await rm(join(folder, 'LOCK'))

    await expect(new RocksLevel(folder).open()).rejects.toMatchObject({
      cause: {
        code: 'LEVEL_LOCKED',
        message: `The database ${folder} is held by process ${child.pid}, though its LOCK file was removed`,
      },
    })

    await expectFree(child, folder)
  },
)

test.runIf(process.platform === 'linux')(
  'a folder another process holds is held, and not damaged, when its CURRENT was removed',
  async ({ expect }) => {
    const { folder, child } = await heldFolder()
    await rm(join(folder, 'CURRENT'))

    await expect(new RocksLevel(folder).open()).rejects.toMatchObject({
      cause: { code: 'LEVEL_LOCKED', message: `The database ${folder} is held by process ${child.pid}` },
    })

    child.kill('SIGKILL')
    await once(child, 'close')
    await expect(new RocksLevel(folder).open()).rejects.toMatchObject({ cause: { code: 'LEVEL_CORRUPTION' } })
  },
)

test('a folder that took the place of its own is left as it is', async ({ expect }) => {
  const folder = join(await temporaryFolder(), 'db')
  const other = new RocksLevel(`${folder}-other`)
  await other.open()
  await other.close()
  const db = new RocksLevel(folder)
  await db.put('key', 'value')
  expect(await db.isInPlace()).toBe(true)
  await rename(folder, `${folder}-away`)
  expect(await db.isInPlace()).toBe(false)
  await rename(`${folder}-other`, folder)
  expect(await db.isInPlace()).toBe(false)
  const before = await readdir(folder)
  await db.close()
  expect(await readdir(folder)).toEqual(before)

  await rm(folder, { recursive: true })
  await rename(`${folder}-away`, folder)
  expect(await db.isInPlace()).toBe(true)
  await db.open()
  expect(await db.get('key')).toBe('value')
  await db.close()
})
