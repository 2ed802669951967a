import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pino from 'pino'
import { expect, onTestFinished, test } from 'vitest'
import { connectionsWithin } from '../../../processor/runtime/resources.ts'
import { removeFolder, temporaryFolder } from '../../../simulators/program.ts'

const table = (limit: string) => `Limit                     Soft Limit           Hard Limit           Units
Max processes             100                  100                  processes
Max open files            ${limit.padEnd(20)} ${limit.padEnd(20)} files
Max locked memory         8388608              8388608              bytes
`

test.each([
  [table('20999'), { api: 0, mqtt: 20_000 }, { api: 0, mqtt: 19_999 }],
  [table('21000'), { api: 0, mqtt: 20_000 }, undefined],
  [table('unlimited'), { api: 10_000, mqtt: 20_000 }, undefined],
  [undefined, { api: 10_000, mqtt: 20_000 }, undefined],
  [table('30999'), { api: 10_000, mqtt: 20_000 }, { api: 9_999, mqtt: 20_000 }],
  [table('1024'), { api: 10_000, mqtt: 20_000 }, { api: 170, mqtt: 512 }],
  [table('256'), { api: 10_000, mqtt: 0 }, { api: 170, mqtt: 0 }],
  [table('256'), { api: 0, mqtt: 0 }, { api: 0, mqtt: 0 }],
])('a low limit of open files is told of, and leaves fewer connections', async (text, wanted, fewer) => {
  const folder = await temporaryFolder()
  onTestFinished(() => removeFolder(folder))
  const file = join(folder, 'limits')
  if (text !== undefined) await writeFile(file, text)
  const lines: string[] = []
  const logger = pino({}, { write: (line) => lines.push(line) })
  expect(await connectionsWithin(wanted, logger, file)).toEqual(fewer ?? wanted)
  const needed = wanted.api + wanted.mqtt + 1_000
  expect(lines.map((line) => JSON.parse(line))).toEqual(
    fewer === undefined ? [] : [expect.objectContaining({ ...fewer, needed, level: 30 })],
  )
})
