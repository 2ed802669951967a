import { execFile, fork } from 'node:child_process'
import { once } from 'node:events'
import { constants, existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { expect, it, onTestFinished, vi } from 'vitest'
import { JEMALLOCS } from '../../processor/runtime/malloc.ts'
import { MAIN, removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { STARTED, Stack, timeFor } from './stack.ts'

const isLinux = process.platform === 'linux'
/** Without settings of malloc. */
const PLAIN = { PATH: process.env.PATH ?? '' }
const isThere = JEMALLOCS.some(existsSync)

it.runIf(isLinux).each([
  { what: 'its own', env: {}, jemalloc: isThere, arenas: '6' },
  { what: 'the C library’s, where nothing is to be preloaded', env: { LD_PRELOAD: '' }, jemalloc: false, arenas: '6' },
  { what: 'as it was set', env: { MALLOC_ARENA_MAX: '3' }, jemalloc: false, arenas: '3' },
])('a process runs with the malloc that suits it: $what', timeFor(1), async ({ env, jemalloc, arenas }) => {
  await using stack = await Stack.start({ env })
  const about = (file: string) => readFile(`/proc/${stack.program.child.pid}/${file}`, 'utf8')
  expect((await about('maps')).includes('libjemalloc')).toBe(jemalloc)
  expect((await about('environ')).split('\0')).toContain(`MALLOC_ARENA_MAX=${arenas}`)
  expect(stack.program.stderr).toBe('')
})

it('a process keeps the channel that its parent has to it', timeFor(1), async () => {
  const folder = await temporaryFolder()
  onTestFinished(() => removeFolder(folder))
  const environment = { ...PLAIN, MQTT_PORT: '0', HTTP_PORT: '0', DATA_DIR: folder }
  const child = fork(MAIN, ['up'], { execArgv: [], env: environment, silent: true })
  const exited = once(child, 'exit')
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exited
  })
  let printed = ''
  child.stdout?.on('data', (text: Buffer) => (printed += text))
  await vi.waitFor(() => expect(printed).toContain('Tidemark is ready'), STARTED)
  expect(child.connected).toBe(true)
})

it('a process starts itself anew once, also where what it sets does not stay', timeFor(1), async () => {
  // As glibc 2.39 does to an executable with capabilities.
  const forget = 'data:text/javascript,delete process.env.MALLOC_ARENA_MAX; delete process.env.LD_PRELOAD'
  expect(await run(['--import', forget, MAIN, 'up', '--nonsense'])).toMatchObject({ code: 2 })
})

it('a process that may start no other runs with the malloc it has', timeFor(1), async () => {
  const { code, stderr } = await run(['--permission', '--allow-fs-read=*', '--allow-addons', MAIN, 'up', '--nonsense'])
  expect([code, stderr]).toEqual([2, expect.stringContaining('--nonsense')])
})

it.runIf(isLinux)('a process leaves its stdout as it was, for who writes there next', timeFor(1), async () => {
  const script = '"$0" "$1" up --nonsense 2>/dev/null; cat /proc/self/fdinfo/1'
  const { stdout } = await promisify(execFile)('sh', ['-c', script, process.execPath, MAIN], { env: PLAIN })
  const flags = /^flags:\s*(\d+)$/m.exec(stdout)?.[1] ?? ''
  expect(Number.parseInt(flags, 8) & constants.O_NONBLOCK).toBe(0)
})

async function run(args: readonly string[]): Promise<{ code: unknown; stderr: string }> {
  const child = execFile(process.execPath, args, { env: PLAIN, timeout: STARTED.timeout })
  let stderr = ''
  child.stderr?.on('data', (text: string) => (stderr += text))
  const [code] = await once(child, 'close')
  return { code, stderr }
}
