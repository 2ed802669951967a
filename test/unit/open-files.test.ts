import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pino from 'pino'
import { expect, onTestFinished, test } from 'vitest'
import { tellOpenFiles } from '../../processor/open-files.ts'
import { removeFolder, temporaryFolder } from '../../simulators/program.ts'

const table = (limit: string) => `Limit                     Soft Limit           Hard Limit           Units
Max processes             100                  100                  processes
Max open files            ${limit.padEnd(20)} ${limit.padEnd(20)} files
Max locked memory         8388608              8388608              bytes
`

test.each([
  [table('20999'), { limit: 20_999, needed: 21_000 }],
  [table('21000'), undefined],
  [table('unlimited'), undefined],
  [undefined, undefined],
])('a low limit of open files is told of, others are not', async (text, expected) => {
  const folder = await temporaryFolder()
  onTestFinished(() => removeFolder(folder))
  const file = join(folder, 'limits')
  if (text !== undefined) await writeFile(file, text)
  const lines: string[] = []
  await tellOpenFiles(20_000, pino({}, { write: (line) => lines.push(line) }), file)
  expect(lines.map((line) => JSON.parse(line))).toEqual(
    expected === undefined ? [] : [expect.objectContaining({ ...expected, level: 30 })],
  )
})
