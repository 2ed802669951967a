import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { shareOf } from '../../../processor/runtime/resources.ts'

const MIB = 1024 * 1024
const LIMITS = new URL('../../../processor/limits.ts', import.meta.url).href

test.each([
  ['a large machine', 16_384, 4_288, 1],
  ['a container of 1 GiB', 1024, 560, 1],
  ['a container of 512 MiB', 512, 259, 0.5],
  ['a container of 256 MiB', 256, 259, 0.25],
  ['a small heap on a large machine', 16_384, 256, 0.5],
  ['next to nothing', 16, 16, 0.125],
])('%s has its share of the usual', (_, memory, heap, share) => {
  expect(shareOf(memory * MIB, heap * MIB)).toBeCloseTo(share, 1)
})

test('caches are smaller in a small heap', async () => {
  const code = `const { DEFAULT_LIMITS } = await import('${LIMITS}'); console.log(JSON.stringify(DEFAULT_LIMITS))`
  const bounds = async (...flags: string[]) => {
    const { stdout } = await promisify(execFile)(process.execPath, [...flags, '--input-type=module', '-e', code])
    return JSON.parse(stdout)
  }
  const [small, large] = await Promise.all([bounds('--max-old-space-size=64'), bounds('--max-old-space-size=2048')])
  for (const name of ['cacheEntries', 'cacheBytes']) expect(small[name]).toBeLessThan(0.6 * large[name])
  expect(small.batchRecords).toBe(large.batchRecords)
})
