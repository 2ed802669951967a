import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { numbered } from '../contract/log-records.ts'
import { kafkaMissing } from './kafka.ts'

const DEADLINE = { timeout: 60_000, interval: 10 }
const PROGRAM = join(import.meta.dirname, '../../simulators/kafka/kafka-command.ts')

describe.skipIf(kafkaMissing !== undefined)('npm run kafka', { timeout: 180_000 }, () => {
  let folder: string
  const children: ChildProcess[] = []

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tidemark-kafka-command-'))
  })

  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGTERM')
    await rm(folder, { recursive: true, force: true })
  })

  function start(args: readonly string[], env: NodeJS.ProcessEnv = process.env) {
    const child = spawn(process.execPath, [PROGRAM, '--data', folder, ...args], { env })
    children.push(child)
    return child
  }

  async function run(args: readonly string[], env?: NodeJS.ProcessEnv): Promise<[ChildProcess, string]> {
    const child = start(args, env)
    let said = ''
    await new Promise<void>((resolve) => {
      child.stdout.on('data', (chunk: Buffer) => {
        said += chunk.toString()
        if (said.includes('\n')) resolve()
      })
      child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
      child.once('close', () => resolve())
    })
    return [child, said]
  }

  test('says when it is ready, keeps its data over a stop, and leaves nothing running', async () => {
    let identity: object | undefined
    for (const end of [10, 20]) {
      const [child, said] = await run(['--port', '0'])
      const broker = /^kafka ready on (127\.0\.0\.1:\d+)\n$/.exec(said)?.[1]
      expect(said).toBe(`kafka ready on ${broker}\n`)
      await using log = await open(broker as string)
      identity ??= log.identity
      expect(log.identity).toEqual(identity)
      await log.append('telemetry', numbered(0, 10))
      expect((await log.bounds({ topic: 'telemetry', index: 0 })).end).toBe(end)
      await log[Symbol.asyncDispose]()
      child.kill('SIGTERM')
      expect(await once(child, 'close')).toEqual([0, null])
      const [, port] = (broker as string).split(':')
      const server = createServer().listen(Number(port), '127.0.0.1')
      await once(server, 'listening')
      server.close()
    }
  })

  test('says that its JVM ended, where to look, and fails', async () => {
    const [child] = await run(['--port', '0'])
    let said = ''
    child.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()))
    const [java] = await javasOf(child)
    process.kill(java as number, 'SIGKILL')
    expect(await once(child, 'close')).toEqual([1, null])
    expect(said).toBe(`kafka: Kafka ended; see ${join(folder, 'node-1', 'java.log')}\n`)
  })

  test('a signal while it starts, and a second one while it stops, leave nothing running', async () => {
    const starting = start(['--port', '0'])
    const java = await vi.waitFor(async () => {
      const found = await javasOf(starting)
      expect(found).not.toEqual([])
      return found
    }, DEADLINE)
    starting.kill('SIGTERM')
    expect(await once(starting, 'close')).toEqual([0, null])
    await vi.waitFor(() => expect(java.filter(isAlive)).toEqual([]), DEADLINE)

    const [stopping] = await run(['--port', '0'])
    const broker = await javasOf(stopping)
    // It cannot end in order.
    for (const pid of broker) process.kill(pid, 'SIGSTOP')
    stopping.kill('SIGTERM')
    await vi.waitFor(() => {
      stopping.kill('SIGTERM')
      expect(stopping.exitCode).toBe(1)
    }, DEADLINE)
    await vi.waitFor(() => expect(broker.filter(isAlive)).toEqual([]), DEADLINE)
  })

  test('--help names its flags, and another is refused in one line', async () => {
    const [, usage] = await run(['--help'])
    for (const flag of ['--port', '--nodes', '--data']) expect(usage).toContain(flag)
    const [child, refusal] = await run(['--ports', '1'])
    expect(refusal).toMatch(/^kafka: .*'--ports'.*--help lists the flags\n$/)
    expect(child.exitCode).toBe(2)
  })

  test('refuses a port in use, and a machine without Java, in one line', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    const [busy, said] = await run(['--port', String(port)])
    expect(said).toMatch(new RegExp(`^kafka: port ${port} of 127\\.0\\.0\\.1 cannot be used: .*\\n$`))
    expect(busy.exitCode).toBe(2)
    server.close()
    const [bare, complaint] = await run(['--port', '0'], { ...process.env, PATH: folder })
    expect(complaint).toMatch(/^kafka: java was not found on PATH; Kafka needs Java 17 or newer.*\n$/)
    expect(bare.exitCode).toBe(2)
  })
})

function open(broker: string): Promise<KafkaLog> {
  const options = { brokers: [broker], prefix: 'command', group: 'command', partitions: 1 }
  return KafkaLog.open({ ...options, logger: pino({ level: 'silent' }), registry: new Registry() })
}

/** Process ids of its children. */
async function javasOf({ pid }: ChildProcess): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
  return text.split(' ').filter(Boolean).map(Number)
}

function isAlive(pid: number): boolean {
  // One that nobody asks for its exit code stays in the table (proc_pid_stat(5)).
  return existsSync(`/proc/${pid}/stat`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
}
