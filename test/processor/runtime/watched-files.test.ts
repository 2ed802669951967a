import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { WatchedFiles } from '../../../processor/runtime/watched-files.ts'
import { removeFolder, temporaryFolder } from '../../../simulators/program.ts'

/** Files are looked at once a second. */
const FOLLOWED = { interval: 20, timeout: 15_000 }

let folder: string
beforeAll(async () => {
  folder = await temporaryFolder()
})
afterAll(() => removeFolder(folder))

function parse([text = '']: readonly string[]): string {
  if (text === 'bad') throw new Error('is bad')
  return text
}

function options(path: string, lines: string[] = []) {
  return { files: [{ variable: 'FILE', path }], parse, logger: pino({}, { write: (line: string) => lines.push(line) }) }
}

it('is read again when it changes, also by a file in its place; what cannot be used changes nothing', async () => {
  const path = join(folder, 'a')
  await writeFile(path, 'one')
  const lines: string[] = []
  using files = await WatchedFiles.open(options(path, lines))
  expect(files.value).toBe('one')
  await writeFile(path, 'bad')
  await vi.waitFor(() => expect(lines.at(-1)).toMatch(/"reason":"is bad".*what they said before holds/), FOLLOWED)
  expect(files.value).toBe('one')
  const changed = vi.fn<(value: string) => void>()
  files.onChange = changed
  await writeFile(join(folder, 'b'), 'two')
  await rename(join(folder, 'b'), path)
  await vi.waitFor(() => expect(changed.mock.calls).toEqual([['two']]), FOLLOWED)
  expect(files.value).toBe('two')
})

it('that cannot be used at the start is refused by its variable', async () => {
  const missing = join(folder, 'missing')
  await expect(WatchedFiles.open(options(missing))).rejects.toMatchObject({
    code: 'INVALID_CONFIGURATION',
    message: expect.stringMatching(/^FILE=.*missing: ENOENT/),
  })
})
