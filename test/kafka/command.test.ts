import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka.ts'
import { numbered } from '../contract/log-records.ts'
import { kafkaMissing } from './kafka.ts'

const PROGRAM = join(import.meta.dirname, '../../simulators/kafka-command.ts')

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

  async function run(args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<[ChildProcess, string]> {
    const child = spawn(process.execPath, [PROGRAM, '--data', folder, ...args], { env })
    children.push(child)
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
    const [java] = (await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')).split(' ')
    process.kill(Number(java), 'SIGKILL')
    expect(await once(child, 'close')).toEqual([1, null])
    expect(said).toBe(`kafka: Kafka ended; see ${join(folder, 'node-1', 'java.log')}\n`)
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
