import { execFileSync } from 'node:child_process'
import { readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { test } from 'vitest'
import { temporaryFolder } from './folder.ts'

const root = join(import.meta.dirname, '../../..')

test('the built package works from plain JavaScript and for TypeScript', { timeout: 60_000 }, async ({ expect }) => {
  const folder = await temporaryFolder()
  const built = join(folder, 'node_modules/rocksdb-level')
  execFileSync(process.execPath, [join(root, 'processor/rocksdb-level/build.ts'), built])
  for (const name of [
    'abstract-level',
    'rocksdb-native',
    'level-transcoder',
    'level-supports',
    '@types',
    'undici-types',
  ]) {
    await symlink(join(root, 'node_modules', name), join(folder, 'node_modules', name))
  }

  await writeFile(
    join(folder, 'use.mjs'),
    `import { RocksLevel } from 'rocksdb-level'
     const db = new RocksLevel('db', { valueEncoding: 'json' })
     await db.put('a', { n: 1 })
     console.log(import.meta.resolve('rocksdb-level').slice(-8), JSON.stringify(await db.iterator().all()))
     await db.close()`,
  )
  const out = execFileSync(process.execPath, ['use.mjs'], { cwd: folder, encoding: 'utf8' })
  expect(out).toBe('index.js [["a",{"n":1}]]\n')

  await writeFile(
    join(folder, 'use.mts'),
    `import { RocksLevel, type RocksLevelOptions } from 'rocksdb-level'
     const options: RocksLevelOptions<string, Buffer> = { writeBufferSize: 1 << 20, valueEncoding: 'buffer' }
     const db = new RocksLevel<string, Buffer>('db', options)
     export const value: Promise<Buffer | undefined> = db.get('a')
     // @ts-expect-error values are Buffers
     void db.put('a', 1)`,
  )
  const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
  const flags = '--noEmit --strict --skipLibCheck false --module nodenext --target es2022 --types node use.mts'.split(
    ' ',
  )
  execFileSync(process.execPath, [tsc, ...flags], { cwd: folder, stdio: 'inherit' })

  const manifest = JSON.parse(await readFile(join(built, 'package.json'), 'utf8'))
  expect(manifest).toMatchObject({ name: 'rocksdb-level', license: 'Apache-2.0', exports: { default: './index.js' } })
  expect(await readFile(join(built, 'README.md'), 'utf8')).toContain('# rocksdb-level')
  expect(await readFile(join(built, 'LICENSE'), 'utf8')).toContain('Apache License')
  await rm(built, { recursive: true })
})
