import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { ConfigurationError } from '../../../processor/contract/errors.ts'
import { readEnvironment, SECRETS, withSecretFiles } from '../../../processor/runtime/environment.ts'

const SECRET = 'no-one-may-read-this'

let folder: string
let file: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-secrets-'))
  file = join(folder, 'secret')
  await writeFile(file, `${SECRET}\n`)
})

afterEach(() => rm(folder, { recursive: true, force: true }))

async function refusal(environment: Record<string, string>): Promise<string> {
  const error: unknown = await withSecretFiles(environment).catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(ConfigurationError)
  expect(String(error)).not.toContain(SECRET)
  return (error as Error).message
}

test('every secret can be given as a file', async () => {
  expect(SECRETS).toEqual(expect.arrayContaining(['CLUSTER_SECRET', 'KAFKA_SASL_PASSWORD']))
  for (const name of SECRETS) {
    const read = await withSecretFiles({ [`${name}_FILE`]: file, HOST: '::1', [name]: '' })
    expect(read).toMatchObject({ [name]: SECRET, HOST: '::1' })
  }
  expect(readEnvironment(await withSecretFiles({ CLUSTER_SECRET_FILE: file })).CLUSTER_SECRET).toBe(SECRET)
})

test('a file that is empty or not there, or a secret that is given twice, is refused by name', async () => {
  const nowhere = join(folder, 'nowhere')
  expect(await refusal({ CLUSTER_SECRET_FILE: nowhere })).toMatch(
    `CLUSTER_SECRET_FILE=${nowhere} cannot be read: ENOENT`,
  )
  expect(await refusal({ CLUSTER_SECRET: SECRET, CLUSTER_SECRET_FILE: file })).toMatch('both set')
  await writeFile(file, '\n')
  expect(await refusal({ CLUSTER_SECRET_FILE: file })).toMatch('empty')
})

test('what is in the file keeps the rules of the variable, and is not shown', async () => {
  await writeFile(file, 'short')
  expect(await withSecretFiles({ CLUSTER_SECRET_FILE: file }).then(readEnvironment).catch(String)).toMatch(
    /CLUSTER_SECRET=…: .*16 to 256/,
  )
})

test('one newline ends a file, more of them are part of the secret, which may have none', async () => {
  const read = () => withSecretFiles({ KAFKA_SASL_PASSWORD_FILE: file })
  await writeFile(file, `${SECRET}\r\n`)
  expect(await read()).toMatchObject({ KAFKA_SASL_PASSWORD: SECRET })
  await writeFile(file, `${SECRET}\n\n`)
  const message = await read().then(readEnvironment).catch(String)
  expect(message).toMatch(/KAFKA_SASL_PASSWORD=…: has a control character/)
  expect(await refusal({ KAFKA_SASL_PASSWORD_FILE: `${file}\r` })).toMatch(
    /KAFKA_SASL_PASSWORD_FILE=".*\\r": has a control/,
  )
})
