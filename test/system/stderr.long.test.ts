import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { endsWithUs, freePorts, MAIN, removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { STARTED } from './stack.ts'

const LOGGER = new URL('../../processor/runtime/logger.ts', import.meta.url).href
/** With what stands around each, more than a pipe and the logger hold. */
const [LINES, LINE_CHARACTERS] = [6000, 1000]

let folder: string

beforeEach(async () => {
  folder = await temporaryFolder()
})

afterEach(async () => {
  await removeFolder(folder)
})

function start(args: readonly string[], stderr: number, env: Record<string, string> = {}) {
  const child = spawn(process.execPath, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', stderr] })
  endsWithUs(child)
  // Also where the test fails.
  onTestFinished(() => void child.kill('SIGKILL'))
  let stdout = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  return { child, exited: once(child, 'exit'), stdout: () => stdout }
}

/** A pipe with no room in it; `writer` blocks, as a pipe that a shell makes does. */
function fullPipe(): { reader: number; writer: number } {
  const path = join(folder, 'pipe')
  execFileSync('mkfifo', [path])
  const reader = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  const writer = openSync(path, 'w')
  try {
    for (;;) writeSync(reader, '\n')
  } catch (error) {
    expect(error).toMatchObject({ code: 'EAGAIN' })
  }
  return { reader, writer }
}

test.each(['a full disk', 'a pipe that nobody reads'])('stderr on %s holds up neither work nor stop', async (name) => {
  const { writer } = name === 'a full disk' ? { writer: openSync('/dev/full', 'w') } : fullPipe()
  const [mqttPort, httpPort] = await freePorts(2)
  const env = { HOST: '127.0.0.1', MQTT_PORT: `${mqttPort}`, HTTP_PORT: `${httpPort}`, DATA_DIR: join(folder, 'data') }
  const { child, exited, stdout } = start([MAIN, 'up'], writer, { ...env, LOG_LEVEL: 'info' })
  await vi.waitFor(() => expect(stdout()).toMatch('Tidemark is ready'), STARTED)
  await vi.waitFor(async () => expect((await fetch(`http://127.0.0.1:${httpPort}/readyz`)).status).toBe(200), STARTED)
  child.kill('SIGTERM')
  expect(await exited).toEqual([0, null])
  closeSync(writer)
})

test('stdout on a full disk ends nothing, and a terminal that is closed stops as SIGTERM does', async () => {
  const [mqttPort, httpPort] = await freePorts(2)
  const env = { HOST: '127.0.0.1', MQTT_PORT: `${mqttPort}`, HTTP_PORT: `${httpPort}`, DATA_DIR: join(folder, 'data') }
  const [full, log] = [openSync('/dev/full', 'w'), openSync(join(folder, 'log'), 'a')]
  const options = { env: { ...process.env, ...env }, stdio: ['ignore' as const, full, log] }
  const child = spawn(process.execPath, [MAIN, 'up'], options)
  endsWithUs(child)
  onTestFinished(() => void child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  const logged = (): string => readFileSync(join(folder, 'log'), 'utf8')
  await vi.waitFor(() => expect(logged()).toMatch('stdout takes nothing'), STARTED)
  child.kill('SIGHUP')
  expect(await exited).toEqual([0, null])
  expect(logged()).toMatch(/"reason":"SIGHUP","msg":"stopping"/)
  closeSync(full)
  closeSync(log)
})

/** Each look takes what one pipe holds, which is little, and is filled again between two. */
const EMPTIED = { timeout: 20_000, interval: 1 }

test('what stderr does not take is kept up to a bound, and what is dropped is told once it takes lines again', async () => {
  const { reader, writer } = fullPipe()
  const code = `
    const { openLogger } = await import('${LOGGER}')
    const logger = openLogger('info')
    for (let i = 0; i < ${LINES}; i++) logger.info({ i }, 'x'.repeat(${LINE_CHARACTERS}))
    console.log('logged')
    setInterval(() => {}, 1000)`
  const { child, stdout } = start(['--input-type=module', '-e', code], writer)
  await vi.waitFor(() => expect(stdout()).toMatch('logged'), STARTED)

  let text = ''
  const chunk = Buffer.alloc(64 * 1024)
  const last = await vi.waitFor(() => {
    try {
      for (;;) text += chunk.toString('latin1', 0, readSync(reader, chunk))
    } catch (error) {
      expect(error).toMatchObject({ code: 'EAGAIN' })
    }
    const told = /\{[^\n]*lines were dropped[^\n]*/.exec(text)?.[0]
    if (told === undefined) throw new Error(`nothing is told in ${text.length} characters`)
    return told
  }, EMPTIED)
  const { lines: dropped } = JSON.parse(last) as { lines: number }
  const numbers = [...text.matchAll(/"i":(\d+)/g)].map(([, number]) => Number(number))
  expect(numbers).toEqual(Array.from({ length: LINES - dropped }, (_, i) => i))
  expect(numbers.length).toBeGreaterThan(500)
  expect(dropped).toBeGreaterThan(0)
  child.kill('SIGKILL')
  closeSync(reader)
  closeSync(writer)
})

test('lines that were logged right before the end are there, and its reason after them, however little a pipe holds', async () => {
  const [pipe, copy] = [join(folder, 'pipe'), join(folder, 'copy')]
  execFileSync('mkfifo', [pipe])
  const reader = spawn('sh', ['-c', 'cat "$0" > "$1"', pipe, copy])
  endsWithUs(reader)
  const code = `
    const { openLogger, lastWords } = await import('${LOGGER}')
    const logger = openLogger('info')
    for (let i = 0; i < 2000; i++) logger.info({ i }, 'x'.repeat(100))
    await lastWords('the reason\\n')
    process.exit(3)`
  const writer = openSync(pipe, 'w')
  const { exited } = start(['--input-type=module', '-e', code], writer)
  closeSync(writer)
  expect(await exited).toEqual([3, null])
  if (reader.exitCode === null) await once(reader, 'exit')
  const text = readFileSync(copy, 'utf8')
  const numbers = [...text.matchAll(/"i":(\d+)/g)].map(([, number]) => Number(number))
  expect(numbers).toEqual(Array.from({ length: 2000 }, (_, i) => i))
  expect(text).toMatch(/\nthe reason\n$/)
})
