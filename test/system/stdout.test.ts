import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, constants, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { MAIN, removeFolder, temporaryFolder } from '../../simulators/program.ts'

const COMMANDS = [
  ['--help'],
  ['simulate', '--help'],
  ['drill', '--help'],
  ['token', '--subject', 'a', '--scope', 'devices:read'],
]
const env = { ...process.env, AUTH: 'jwt', AUTH_SECRET: 'not-so-secret-but-32-bytes-long!' }

let folder: string
beforeEach(async () => {
  folder = await temporaryFolder()
})
afterEach(() => removeFolder(folder))

/** What a command says of it, and its exit code. */
function printTo(stdout: number, command: readonly string[]): [number | null, string] {
  const { status, stderr } = spawnSync(process.execPath, [MAIN, ...command], { env, stdio: ['ignore', stdout, 'pipe'] })
  return [status, stderr.toString()]
}

test.each(COMMANDS)('%s on a full disk says so in a line', (...command) => {
  const full = openSync('/dev/full', 'w')
  expect(printTo(full, command)).toEqual([
    1,
    'tidemark: stdout cannot be written: ENOSPC: no space left on device, write\n',
  ])
  closeSync(full)
})

test.each(COMMANDS)('%s for nobody that reads it ends without a word', (...command) => {
  const pipe = join(folder, 'pipe')
  execFileSync('mkfifo', [pipe])
  const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
  const writer = openSync(pipe, 'w')
  closeSync(reader)
  expect(printTo(writer, command)).toEqual([1, ''])
  closeSync(writer)
})

test.each([
  ['up', {}],
  ['processor', { KAFKA_BROKERS: '127.0.0.1:1' }],
])('%s whose working folder is gone says so in a line', (role, more) => {
  const gone = join(folder, 'gone')
  mkdirSync(gone)
  const script = 'cd "$0" && rmdir "$0" && exec "$@"'
  const { status, stderr } = spawnSync('sh', ['-c', script, gone, process.execPath, MAIN, role], {
    env: { ...process.env, MQTT_PORT: '0', HTTP_PORT: '0', LOG_LEVEL: 'warn', ...more },
    timeout: 30_000,
    killSignal: 'SIGKILL',
  })
  expect([status, stderr.toString()]).toEqual([
    2,
    'tidemark: the working folder is not there any more: start this in another one\n',
  ])
})
