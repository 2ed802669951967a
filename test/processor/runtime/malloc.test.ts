import { availableParallelism } from 'node:os'
import { describe, expect, it } from 'vitest'
import { JEMALLOCS, mallocSettings } from '../../../processor/runtime/malloc.ts'

const LIBRARY = JEMALLOCS.at(-1) as string
const isThere = (path: string) => path === LIBRARY
const ARENAS = { MALLOC_ARENA_MAX: '6', TIDEMARK_STARTED_ANEW: '1' }

describe('the settings of malloc', () => {
  it('are jemalloc, where it is, with an arena for each core', () => {
    const conf = `narenas:${availableParallelism()}`
    expect(mallocSettings({}, isThere)).toEqual({ ...ARENAS, LD_PRELOAD: LIBRARY, MALLOC_CONF: conf })
  })

  it('leave those of jemalloc that are there', () => {
    const settings = { ...ARENAS, LD_PRELOAD: LIBRARY, MALLOC_CONF: 'stats_print:true' }
    expect(mallocSettings({ MALLOC_CONF: 'stats_print:true' }, isThere)).toEqual(settings)
  })

  it('are a bound on the arenas of the C library, where jemalloc is not, or another library is preloaded, or none is to be', () => {
    expect(mallocSettings({}, () => false)).toEqual(ARENAS)
    for (const LD_PRELOAD of ['/opt/trace.so', '']) expect(mallocSettings({ LD_PRELOAD }, isThere)).toEqual(ARENAS)
  })

  it('are not touched once they are made', () => {
    expect(mallocSettings({ MALLOC_ARENA_MAX: '2' }, isThere)).toBeUndefined()
    expect(mallocSettings({ ...mallocSettings({}, isThere) }, isThere)).toBeUndefined()
    expect(mallocSettings({ TIDEMARK_STARTED_ANEW: '1' }, isThere)).toBeUndefined()
  })
})
