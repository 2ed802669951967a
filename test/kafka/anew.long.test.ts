import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { Processor } from '../../processor/processor.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { said } from '../processor/workbench.ts'
import { kafkaMissing, startKafka } from './kafka.ts'
import { kafkaTool } from './tools.ts'

const DEADLINE = { timeout: 30_000, interval: 20 }
const DEVICES = Array.from({ length: 50 }, (_, i) => `device-${i}`)

/** A processor with a client of its own, as in a process of its own. */
class Running implements AsyncDisposable {
  readonly log: KafkaLog
  readonly lines: string[]
  readonly processor: Processor
  readonly #folder: string
  readonly #stopping = new AbortController()
  /** 'running', or what its part in the group ended with. */
  outcome: unknown = 'running'

  private constructor(log: KafkaLog, lines: string[], processor: Processor, folder: string) {
    this.log = log
    this.lines = lines
    this.processor = processor
    this.#folder = folder
    processor.run(this.#stopping.signal).then(
      () => (this.outcome = 'ended'),
      (error: unknown) => (this.outcome = error),
    )
  }

  static async open(brokers: string, prefix: string, instance: string): Promise<Running> {
    const lines: string[] = []
    const logger = pino({}, { write: (line) => lines.push(line) })
    const log = await openLog(brokers, prefix, logger)
    const folder = await mkdtemp(join(tmpdir(), 'tidemark-anew-'))
    const made = { log, instance, endpoint: `${instance}:1`, folder, logger, registry: new Registry(), now: Date.now }
    return new Running(log, lines, await Processor.open(made), folder)
  }

  stop(): Promise<void> {
    this.#stopping.abort()
    return vi.waitFor(() => expect(this.outcome).not.toBe('running'), DEADLINE)
  }

  async copy() {
    return (await this.processor.reader.copies())[0]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort()
    await this.log[Symbol.asyncDispose]()
    await this.stop()
    await this.processor[Symbol.asyncDispose]()
    await rm(this.#folder, { recursive: true })
  }
}

const quiet = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' })

function openLog(brokers: string, prefix: string, logger = quiet): Promise<KafkaLog> {
  const options = { brokers: [brokers], prefix, group: prefix, partitions: 1, standbys: 1, logger }
  return KafkaLog.open({ ...options, registry: new Registry() })
}

describe.skipIf(kafkaMissing !== undefined)('a topic that is changed by hand', { timeout: 300_000 }, () => {
  let kafka: Kafka

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterAll(() => kafka[Symbol.asyncDispose]())

  test('with more partitions is told of, and no process begins on it', async () => {
    const prefix = `grown-${randomUUID()}`
    await using owner = await Running.open(kafka.brokers, prefix, 'owner')
    await owner.log.append(
      'telemetry',
      DEVICES.map((id) => said(id, { x: 1 }, Date.now())),
    )
    await vi.waitFor(async () => expect((await owner.copy())?.devices).toBe(DEVICES.length), DEADLINE)
    for (const topic of ['telemetry', 'status', 'dead-letters']) {
      const alter = ['--alter', '--topic', `${prefix}.${topic}`, '--partitions', '2']
      await kafkaTool(kafka.brokers, 'org.apache.kafka.tools.TopicCommand', alter)
    }
    await vi.waitFor(() => expect(owner.lines.join('')).toMatch(/telemetry has 2 partitions, and had 1 /), DEADLINE)
    expect(owner.outcome).toBe('running')
    // Where the group does not tell in a second what it has committed, a log is opened, and its claims find it out.
    await vi.waitFor(async () => {
      const opened = await openLog(kafka.brokers, prefix).catch((error: unknown) => error)
      if (opened instanceof KafkaLog) await opened[Symbol.asyncDispose]()
      expect(opened).toMatchObject({
        code: 'LOG_MISMATCH',
        message: expect.stringMatching(/telemetry had 1 partitions .* has 2 now: .* use another TOPIC_PREFIX/),
      })
    }, DEADLINE)
  })

  test('to none is a fault of the log, though nothing is written', async () => {
    const prefix = `gone-${randomUUID()}`
    await using log = await openLog(kafka.brokers, prefix)
    expect(log.fault).toBeUndefined()
    const deletion = ['--delete', '--topic', `${prefix}.telemetry`]
    await kafkaTool(kafka.brokers, 'org.apache.kafka.tools.TopicCommand', deletion)
    await vi.waitFor(() => expect(log.fault?.message).toMatch(/no topic gone-.*: it was deleted/), DEADLINE)
  })

  test.each(['status', 'telemetry'] as const)(
    'anew while processors run (%s) ends them with its name, and no copy is wiped',
    async (topic) => {
      const prefix = `anew-${randomUUID()}`
      await using owner = await Running.open(kafka.brokers, prefix, 'owner')
      await vi.waitFor(async () => expect((await owner.copy())?.role).toBe('owner'), DEADLINE)
      await using standby = await Running.open(kafka.brokers, prefix, 'standby')
      const all = DEVICES.map((id) => said(id, { x: 1 }, Date.now()))
      await owner.log.append('telemetry', all)
      for (const running of [owner, standby]) {
        await vi.waitFor(async () => expect((await running.copy())?.devices).toBe(DEVICES.length), DEADLINE)
      }

      const name = `${prefix}.${topic}`
      await kafkaTool(kafka.brokers, 'org.apache.kafka.tools.TopicCommand', ['--delete', '--topic', name])
      const again = await vi.waitFor(async () => {
        const log = await openLog(kafka.brokers, prefix)
        if (log.identity[topic] !== owner.log.identity[topic]) return log
        await log[Symbol.asyncDispose]()
        throw new Error('the topic is still there')
      }, DEADLINE)
      await again.append('telemetry', [said('device-0', { x: 2 }, Date.now())])
      await again[Symbol.asyncDispose]()

      for (const running of [owner, standby]) {
        await vi.waitFor(() => expect(running.outcome).toMatchObject({ code: 'LOG_MISMATCH' }), DEADLINE)
        expect(String(running.outcome)).toContain(`topic ${name} was deleted and created anew`)
        expect(running.lines.join('')).not.toContain('store wiped')
      }
    },
  )
})
