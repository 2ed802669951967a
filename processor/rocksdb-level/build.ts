// Makes the package as it is published: JavaScript and declarations, because Node strips no types under node_modules.
// Usage: node build.ts [folder], by default dist/.
import { execFileSync } from 'node:child_process'
import { cp, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'

const here = import.meta.dirname
const out = resolve(process.argv[2] ?? join(here, 'dist'))
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')

await rm(out, { recursive: true, force: true })
await mkdir(out, { recursive: true })
execFileSync(process.execPath, [tsc, '-p', join(here, 'tsconfig.build.json'), '--outDir', out], { stdio: 'inherit' })

// TypeScript rewrites the extensions of imports in JavaScript only.
for (const name of await readdir(out)) {
  if (!name.endsWith('.d.ts')) continue
  const text = await readFile(join(out, name), 'utf8')
  await writeFile(join(out, name), text.replace(/(from '\.\/[\w-]+)\.ts'/g, "$1.js'"))
}

const { scripts: _, ...manifest } = JSON.parse(await readFile(join(here, 'package.json'), 'utf8'))
manifest.exports = { types: './index.d.ts', default: './index.js' }
manifest.types = './index.d.ts'
manifest.files = ['*.js', '*.d.ts']
await writeFile(join(out, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
for (const name of ['README.md', 'LICENSE']) await cp(join(here, name), join(out, name))
