import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { JEMALLOCS } from '../../processor/malloc.ts'
import { Stack, timeFor } from './stack.ts'

const isLinux = process.platform === 'linux'
const isThere = JEMALLOCS.some(existsSync)

it.runIf(isLinux).each([
  { what: 'its own', env: {}, jemalloc: isThere, arenas: '6' },
  { what: 'the C library’s, where nothing is to be preloaded', env: { LD_PRELOAD: '' }, jemalloc: false, arenas: '6' },
  { what: 'as it was set', env: { MALLOC_ARENA_MAX: '3' }, jemalloc: false, arenas: '3' },
])('a process runs with the malloc that suits it: $what', timeFor(1), async ({ env, jemalloc, arenas }) => {
  await using stack = await Stack.start({ env })
  const about = (file: string) => readFile(`/proc/${stack.program.child.pid}/${file}`, 'utf8')
  expect((await about('maps')).includes('libjemalloc')).toBe(jemalloc)
  expect((await about('environ')).split('\0')).toContain(`MALLOC_ARENA_MAX=${arenas}`)
  expect(stack.program.stderr).toBe('')
})
