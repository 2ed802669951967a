import { expect, onTestFinished, test, vi } from 'vitest'
import { Cleaner } from '../../../../processor/log/embedded/cleaner.ts'
import type { Claim } from '../../../../processor/log/log.ts'
import { TestMember } from '../../../contract/log-member.ts'
import { record } from '../../../contract/log-records.ts'
import { dump, folder, openLog } from './folder.ts'

test.each([
  { maxKeys: 10, passes: 3 },
  { maxKeys: 11, passes: 2 },
  { maxKeys: 31, passes: 1 },
])('one pass of the cleaner ends with the batch that brings its keys to $maxKeys', async ({ maxKeys, passes }) => {
  const log = await openLog(await folder(), { tailRecords: 0, compaction: { minDirtyBytes: 0, maxKeys } })
  const member = new TestMember('m').join(log)
  await vi.waitFor(() => expect(member.claims.size).toBe(1))
  const claim = member.claims.get(0) as Claim
  const clean = vi.spyOn(Cleaner.prototype, 'clean')
  onTestFinished(() => clean.mockRestore())
  for (let batch = 0; batch < 4; batch++) {
    const changelog = Array.from({ length: 10 }, (_, i) => record(`key-${batch}-${i}`, 'x'.repeat(20_000)))
    await claim.commit({ changelog, deadLetters: [], next: batch })
  }
  await log.tidy()
  const results = await Promise.all(clean.mock.results.map(({ value }) => value))
  expect(results.filter((won) => won !== undefined)).toHaveLength(passes)
  expect(await dump(log, 'status')).toHaveLength(40)
})
