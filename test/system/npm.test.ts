import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connectAsync } from 'mqtt'
import { afterEach, expect, test, vi } from 'vitest'
import { freePorts, removeFolder, temporaryFolder } from '../../simulators/program.ts'
import { timeFor } from './stack.ts'

const REPOSITORY = new URL('../..', import.meta.url)
const DEADLINE = { timeout: 30_000, interval: 10 }

const started: ChildProcess[] = []
const folders: string[] = []

afterEach(async () => {
  for (const { pid } of started.splice(0)) endGroup(pid as number)
  for (const folder of folders.splice(0)) await removeFolder(folder)
})

/** Whatever npm left behind too. */
function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** A script of package.json by npm, as the leader of a process group, which a terminal's Ctrl-C is sent to. */
async function run(script: string) {
  const [mqttPort, httpPort] = (await freePorts(2)) as [number, number]
  const folder = await temporaryFolder()
  folders.push(folder)
  const npm = spawn('npm', ['run', script], {
    cwd: REPOSITORY,
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      PATH: process.env.PATH,
      HOME: folder,
      MQTT_PORT: String(mqttPort),
      HTTP_PORT: String(httpPort),
      HTTP_DRAIN_SECONDS: '2',
      DATA_DIR: folder,
      LOG_LEVEL: 'info',
    },
  })
  started.push(npm)
  let log = ''
  npm.stderr.setEncoding('utf8').on('data', (text: string) => (log += text))
  // 'close' comes when what it logged is read too.
  const exited = once(npm, 'close')
  const readyz = () => fetch(`http://127.0.0.1:${httpPort}/readyz`).then(({ status }) => status)
  await vi.waitFor(async () => expect(await readyz()).toBe(200), DEADLINE)
  return { pid: npm.pid as number, mqttPort, exited, readyz, log: () => log }
}

test.each([
  ['start', 'SIGTERM at npm', 'SIGTERM'],
  ['start', 'Ctrl-C, which npm and the process get, and npm hands on', 'SIGINT'],
  ['demo', 'SIGTERM at npm', 'SIGTERM'],
] as const)('npm run %s drains and ends well at %s', timeFor(2), async (script, _how, signal) => {
  const { pid, mqttPort, exited, readyz, log } = await run(script)
  const device = await connectAsync(`mqtt://127.0.0.1:${mqttPort}`, { reconnectPeriod: 0 })
  const closed = new Promise((resolve) => device.once('close', () => resolve(undefined)))
  process.kill(signal === 'SIGINT' ? -pid : pid, signal)
  await vi.waitFor(async () => expect(await readyz()).toBe(503), DEADLINE)
  await closed
  expect(await exited).toEqual([0, null])
  // Nothing of it is left, and nothing was cut short.
  expect(() => process.kill(-pid, 0)).toThrow('ESRCH')
  await expect(readyz()).rejects.toThrow()
  expect(log()).toContain(`"reason":"${signal}","msg":"stopping"`)
  expect(log()).not.toMatch(/"level":[56]0/)
})

test('each script that runs a program of ours becomes it', async () => {
  const { scripts } = JSON.parse(await readFile(new URL('package.json', REPOSITORY), 'utf8')) as {
    scripts: Record<string, string>
  }
  const ours = Object.entries(scripts).filter(([, script]) => /\bnode [^|&;]*\.ts\b/.test(script))
  expect(ours.map(([name]) => name)).toEqual(
    expect.arrayContaining(['start', 'demo', 'ingest', 'processor', 'api', 'simulate', 'drill', 'kafka', 'bench']),
  )
  for (const [name, script] of ours) expect(script, name).toMatch(/^(\w+=\S+ )*exec node /)
})
