import { readdir, readFile } from 'node:fs/promises'
import { getPriority } from 'node:os'
import { expect, onTestFinished, test } from 'vitest'
import { RocksLevel } from '../../../processor/rocksdb-level/index.ts'
import { temporaryFolder } from './folder.ts'

test.skipIf(process.platform !== 'linux')('threads that compact yield to all others', async () => {
  const db = new RocksLevel(await temporaryFolder())
  onTestFinished(() => db.close())
  await db.open()
  const priorities = new Map<string, Set<number>>()
  for (const thread of await readdir('/proc/self/task')) {
    const name = (await readFile(`/proc/self/task/${thread}/comm`, 'latin1')).trimEnd()
    priorities.set(name, (priorities.get(name) ?? new Set()).add(getPriority(Number(thread))))
  }
  const own = Math.min(...(priorities.get('rocksdb:high') ?? []))
  expect(priorities.get('rocksdb:low')).toEqual(new Set([Math.max(own, 10)]))
  expect(own).toBe(getPriority(process.pid))
})
