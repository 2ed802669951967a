import { randomUUID } from 'node:crypto'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { kafkaMissing, startKafka } from '../kafka/kafka.ts'
import { logContract } from './log.ts'
import type { HarnessOptions, LogHarness } from './log-harness.ts'

describe.skipIf(kafkaMissing !== undefined)(`on Kafka${kafkaMissing === undefined ? '' : ` (${kafkaMissing})`}`, () => {
  let kafka: Kafka | undefined

  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)

  afterAll(() => kafka?.[Symbol.asyncDispose]())

  logContract({ name: 'Kafka', open: (options) => KafkaHarness.open((kafka as Kafka).brokers, options) })
})

class KafkaHarness implements LogHarness {
  readonly #brokers: string
  readonly #options: HarnessOptions
  readonly #prefix = `contract-${randomUUID()}`
  readonly #logs = new Set<KafkaLog>()
  log!: KafkaLog

  private constructor(brokers: string, options: HarnessOptions) {
    this.#brokers = brokers
    this.#options = options
  }

  static async open(brokers: string, options: HarnessOptions): Promise<KafkaHarness> {
    const harness = new KafkaHarness(brokers, options)
    harness.log = await harness.connect()
    return harness
  }

  async connect(): Promise<KafkaLog> {
    const log = await KafkaLog.open({
      ...this.#options,
      brokers: this.#brokers.split(','),
      prefix: this.#prefix,
      group: this.#prefix,
      logger: pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' }),
      registry: new Registry(),
    })
    this.#logs.add(log)
    return log
  }

  async crash(log: KafkaLog): Promise<void> {
    const dead = log.memberIds
    log.sever()
    await this.#evict(dead)
  }

  async evict(log: KafkaLog): Promise<void> {
    const frozen = log.memberIds
    log.suspend()
    await this.#evict(frozen)
  }

  async reopen(): Promise<KafkaLog> {
    await this.#close()
    this.log = await this.connect()
    return this.log
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close()
  }

  async #evict(memberIds: readonly string[]): Promise<void> {
    for (const memberId of memberIds) await this.log.evict(memberId)
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#logs].map((log) => log[Symbol.asyncDispose]()))
    this.#logs.clear()
  }
}
