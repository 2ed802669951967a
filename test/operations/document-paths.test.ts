import { access, readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { REPOSITORY } from './composition.ts'

const ROOMS = ['api', 'ingest', 'processor', 'simulators', 'test', 'docs', '.ci']
const MAX_COLUMNS = 120

const pages = ['README.md', 'ARCHITECTURE.md']
for (const name of await readdir(join(REPOSITORY, 'docs'))) pages.push(`docs/${name}`)

/** Names of all files and folders, without the path to them. */
let names: Set<string>

beforeAll(async () => {
  const rooms = await Promise.all(ROOMS.map((room) => readdir(join(REPOSITORY, room), { recursive: true })))
  const paths = [...ROOMS, ...rooms.flat(), ...(await readdir(REPOSITORY))]
  names = new Set(paths.map((path) => basename(path)))
})

describe.each(pages)('%s', (page) => {
  let text: string

  beforeAll(async () => {
    text = await readFile(join(REPOSITORY, page), 'utf8')
  })

  test('names files and folders that are there', async () => {
    const missing: string[] = []
    for (const [, path = ''] of text.matchAll(/`((?:\.ci|\w+)\/[\w./-]+)`/g)) {
      const isOurs = ROOMS.includes(path.split('/')[0] as string)
      if (isOurs) await access(join(REPOSITORY, path)).catch(() => missing.push(path))
    }
    for (const [path] of text.matchAll(/[\w./-]+\.(?:ts|peggy)\b/g)) if (!names.has(basename(path))) missing.push(path)
    expect(missing).toEqual([])
  })

  test(`has no line over ${MAX_COLUMNS} characters`, () => {
    expect(text.split('\n').filter((line) => line.length > MAX_COLUMNS)).toEqual([])
  })
})

test('the map of the code in ARCHITECTURE.md names rooms that are there', async () => {
  const text = await readFile(join(REPOSITORY, 'ARCHITECTURE.md'), 'utf8')
  const [, map = ''] = /^## Map of the code\n+```\n([^]*?)```/m.exec(text) ?? []
  const rooms = Array.from(map.matchAll(/(?<=^|\s)([a-z][a-z-]*)\//gm), ([, room]) => room as string)
  expect(rooms.length).toBeGreaterThan(25)
  expect(rooms.filter((room) => !names.has(room))).toEqual([])
})
