import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { beginProcessors } from '../../../processor/open.ts'
import { readEnvironment } from '../../../processor/runtime/environment.ts'
import { instanceOf } from '../../../processor/runtime/instance.ts'

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'tidemark-beginning-'))
  onTestFinished(() => rm(path, { recursive: true }))
  return path
}

test('a name is made once, and kept', async () => {
  const dataDir = await folder()
  const name = await instanceOf(dataDir)
  expect(await instanceOf(dataDir)).toBe(name)
  expect(await readdir(dataDir)).toEqual(['instance-id'])
  expect(await readFile(join(dataDir, 'instance-id'), 'utf8')).toBe(`${name}\n`)
})

test.each(['', '\n', '..', 'log', 'a/../../b', 'two words'])('a file that holds %j names no stores', async (text) => {
  const dataDir = await folder()
  const file = join(dataDir, 'instance-id')
  await writeFile(file, text)
  const named = expect.stringContaining(file)
  await expect(instanceOf(dataDir)).rejects.toMatchObject({ name: 'ConfigurationError', message: named })
  await expect(instanceOf(dataDir)).rejects.toThrow(/remove the file.*new name/)
  // It is the only word of where the stores are.
  expect(await readFile(file, 'utf8')).toBe(text)
})

test('ports beyond the last one are refused before anything is opened', async () => {
  const DATA_DIR = await folder()
  const environment = { DATA_DIR, INSTANCE_ID: 'one', QUERY_PORT: '65535' }
  await using running = new AsyncDisposableStack()
  const kafka = readEnvironment({ ...environment, KAFKA_BROKERS: '127.0.0.1:1' })
  const refused = { name: 'ConfigurationError', message: expect.stringMatching(/QUERY_PORT=65535: 2 .* to 65534/) }
  await expect(beginProcessors(kafka, 2, running)).rejects.toMatchObject(refused)
  expect(await readdir(DATA_DIR)).toEqual([])
  // Processors on the embedded log have no endpoint.
  expect(await beginProcessors(readEnvironment(environment), 2, running)).toHaveLength(2)
})
