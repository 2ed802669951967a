import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { freePorts, Program } from '../../simulators/program.ts'
import { Stack, timeFor } from './stack.ts'

let folder: string
let env: Record<string, string>

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-'))
  const [mqttPort, httpPort] = await freePorts(2)
  env = {
    HOST: '127.0.0.1',
    MQTT_PORT: String(mqttPort),
    HTTP_PORT: String(httpPort),
    DATA_DIR: join(folder, 'data'),
    LOG_LEVEL: 'warn',
  }
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

/** One clear line that says `what`, and exit code 2. */
async function refuses(environment: Record<string, string>, ...what: (string | RegExp)[]): Promise<void> {
  const program = Program.main(['up'], environment)
  try {
    expect(await program.exited).toEqual({ code: 2, signal: null })
    expect(program.stderr.trimEnd().split('\n')).toHaveLength(1)
    for (const part of what) expect(program.stderr).toMatch(part)
    expect(program.stderr).not.toMatch(/\n\s+at /)
  } finally {
    await program.kill()
  }
}

async function listen(): Promise<{ server: Server; port: string }> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { server, port: String((server.address() as AddressInfo).port) }
}

test.each(['MQTT_PORT', 'HTTP_PORT'])('%s that another program has', async (name) => {
  const { server, port } = await listen()
  try {
    await refuses({ ...env, [name]: port }, port)
  } finally {
    server.close()
  }
})

test('a data folder that another process has', timeFor(2), async () => {
  await using stack = await Stack.start()
  await refuses({ ...env, DATA_DIR: stack.dataDir }, stack.dataDir)
  expect((await stack.get('/readyz')).status).toBe(200)
})

test('a data folder that is a file', async () => {
  const file = join(folder, 'file')
  await writeFile(file, '')
  await refuses({ ...env, DATA_DIR: file }, file)
})

test('a data folder that cannot be made', async () => {
  await refuses({ ...env, DATA_DIR: '/proc/tidemark' }, '/proc/tidemark')
})

test.each([
  ['MQTT_PORT', 'abc'],
  ['MQTT_PORT', '70000'],
  ['HTTP_PORT', '-1'],
  ['PARTITIONS', '0'],
  ['PARTITIONS', '2.5'],
  ['STANDBYS', 'many'],
  ['LOG_LEVEL', 'loud'],
])('%s=%s', async (name, value) => {
  await refuses({ ...env, [name]: value }, name, value)
})

test.each([
  [{ HOST: '0.0.0.0' }, ['HOST=0.0.0.0', 'AUTH=jwt', 'AUTH=none']],
  [{ AUTH: 'jwt', AUTH_JWKS: '/nowhere/jwks.json' }, ['AUTH_JWKS', '/nowhere/jwks.json']],
])('an API that %j would leave open, or closed to all', async (more: Record<string, string>, what) => {
  await refuses({ ...env, ...more }, ...what)
})

test('another number of partitions than the folder was made with', timeFor(3), async () => {
  await using stack = await Stack.start({ env: { PARTITIONS: '2' } })
  await stack.stop()
  await refuses({ ...env, DATA_DIR: stack.dataDir, PARTITIONS: '3' }, 'PARTITIONS', '2', '3')
})

test('what a process compiled is there for the next one, also after kill -9', async () => {
  const compiled = join(folder, 'compiled')
  const program = Program.main(['up'], { ...env, NODE_COMPILE_CACHE: compiled })
  await vi.waitFor(() => expect(program.stdout).toMatch('is ready'), { timeout: 20_000 })
  await program.kill()
  const files = await readdir(compiled, { recursive: true })
  expect(files.length).toBeGreaterThan(1_000)
})

test('an unknown role', async () => {
  const program = Program.main(['upp'], env)
  expect(await program.exited).toEqual({ code: 2, signal: null })
  expect(program.stderr).toMatch('upp')
})
