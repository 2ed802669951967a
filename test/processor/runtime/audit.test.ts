import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openAudit } from '../../../processor/runtime/audit.ts'
import { removeFolder, temporaryFolder } from '../../../simulators/program.ts'
import { silent } from '../../api/stage.ts'

let folder: string
beforeAll(async () => {
  folder = await temporaryFolder()
})
afterAll(() => removeFolder(folder))

it('adds a line of JSON for each event to a file that only its owner reads, over restarts', async () => {
  const file = join(folder, 'audit.jsonl')
  for (const client of ['first', 'second\n"}', 'x'.repeat(1_000)]) {
    await using running = new AsyncDisposableStack()
    const audit = await openAudit(file, silent, running)
    audit('connect', { client, status: 1, name: undefined })
  }
  const lines = (await readFile(file, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as object)
  expect(lines).toEqual(
    ['first', 'second\n"}', `${'x'.repeat(256)}…`].map((client) => ({
      time: expect.stringMatching(/^\d{4}-.*Z$/) as string,
      level: 'info',
      audit: 'connect',
      client,
      status: 1,
    })),
  )
  expect((await stat(file)).mode & 0o777).toBe(0o600)
})

it('names the variable when the file cannot be opened', async () => {
  await using running = new AsyncDisposableStack()
  await expect(openAudit(folder, silent, running)).rejects.toThrow(`AUDIT_LOG=${folder}: EISDIR`)
})
