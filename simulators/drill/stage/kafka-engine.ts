import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import pino from 'pino'
import { Registry } from 'prom-client'
import { hostAndPort } from '../../../processor/contract/address.ts'
import { ConfigurationError, reasonOf } from '../../../processor/contract/errors.ts'
import type { PartitionReader } from '../../../processor/contract/query.ts'
import type { KafkaLog } from '../../../processor/log/kafka/kafka-log.ts'
import { type TopicNames, topicNames } from '../../../processor/log/kafka/topics.ts'
import type { Log, LogRecord, Topic } from '../../../processor/log/log.ts'
import { openLog } from '../../../processor/log/open.ts'
import type { Configuration } from '../../../processor/runtime/environment.ts'
import { pause, within } from '../../../processor/runtime/pause.ts'
import { ChangelogCheck } from '../checks/changelog-check.ts'
import {
  type CopyReading,
  copyPages,
  type Expected,
  lackingCopy,
  readAlone,
  readApi,
  readCopy,
} from '../checks/copies.ts'
import { InputCount, removedSince } from '../checks/input-count.ts'
import type { Engine, Gathered, GatherOptions, LogReading } from './engine.ts'
import { type Committed, ForeignKafka, type ForeignOptions } from './foreign.ts'
import { KafkaStage, type KafkaStageOptions, type NamedKafka } from './kafka-stage.ts'
import { KafkaSight } from './observer.ts'
import { type ApiAddress, AttachedStage, type Stage } from './stage.ts'

/** Longest look at one thing, ms: what takes longer hangs. */
const MAX_LOOK_MS = 600_000

/** Looks at one thing after the other. What cannot be looked at is told, and keeps nobody from the rest. */
export class Looks {
  readonly missing: string[] = []

  /** Undefined when it could not be looked at. */
  async at<T>(what: string, look: () => Promise<T>): Promise<T | undefined> {
    try {
      return await within(look(), MAX_LOOK_MS, tooLong)
    } catch (error) {
      this.missing.push(`${what}: ${reasonOf(error)}`)
      return undefined
    }
  }
}

function tooLong(): never {
  throw new Error(`not within ${MAX_LOOK_MS / 1000} s`)
}

const LIMITS = { maxRecords: 2_000, maxBytes: 4 * 1024 * 1024 }

/** Gives all records of a partition; resolves with the offset after the last one. */
export async function readRecords(
  log: Log,
  topic: Topic,
  index: number,
  take: (record: LogRecord) => void,
): Promise<number> {
  const { start, end } = await log.bounds({ topic, index })
  if (start === end) return end
  const read = new AbortController()
  for await (const { records, next } of log.follow({ topic, index }, start, LIMITS, read.signal)) {
    for (const record of records) take(record)
    if (next >= end) read.abort()
  }
  return end
}

/** Dead letters of the drill's devices. */
export async function deadLettersOf(log: Log, prefix: string): Promise<number> {
  let count = 0
  const take = ({ key }: LogRecord): void => {
    if (key?.startsWith(`${prefix}-`) === true) count++
  }
  for (let index = 0; index < log.identity.partitions; index++) await readRecords(log, 'dead-letters', index, take)
  return count
}

const CONNECT_MS = 3_000
const LOOK_MS = 100

/** Processes on Kafka, seen from outside. */
export class KafkaEngine implements Engine {
  readonly stage: Stage
  readonly sight: KafkaSight
  readonly #foreign: ForeignKafka
  readonly #log: Log
  readonly #names: TopicNames
  readonly #group: string
  readonly #began: readonly number[]
  readonly #held: AsyncDisposableStack

  private constructor(stage: Stage, parts: Parts) {
    this.stage = stage
    this.#foreign = parts.foreign
    this.#log = parts.log
    this.#names = topicNames(parts.prefix)
    this.#group = parts.group
    this.#began = parts.began
    this.sight = new KafkaSight(parts.foreign, parts.group, this.#names, parts.secret)
    this.#held = parts.held
  }

  /** Starts a cluster. Rejects with ConfigurationError when Kafka cannot be had. */
  static async start(options: KafkaStageOptions, signal: AbortSignal): Promise<KafkaEngine> {
    const { named } = options
    if (named !== undefined) await requireKafka(named.brokers)
    await using held = new AsyncDisposableStack()
    const stage = held.use(await KafkaStage.open(options, signal))
    const log = held.use(await stage.cluster.log())
    const foreign = held.use(await ForeignKafka.open(named ?? { brokers: stage.brokers.split(',') }))
    const { prefix, secret } = stage.cluster
    return new KafkaEngine(stage, { foreign, log, prefix, group: prefix, secret, began: [], held: held.move() })
  }

  /** Looks at a cluster that runs. Rejects with ConfigurationError when Kafka or the API does not answer. */
  static async attach(
    configuration: Configuration,
    api: string,
    mqtt: { readonly host: string; readonly port: number },
  ): Promise<KafkaEngine> {
    if (configuration.KAFKA_BROKERS === undefined) {
      const way = 'set KAFKA_BROKERS as its roles have it'
      throw new ConfigurationError('INVALID_CONFIGURATION', `--attach looks at a cluster on Kafka: ${way}`)
    }
    const options = await foreignOptions(configuration)
    await requireKafka(options.brokers)
    await using held = new AsyncDisposableStack()
    const log = held.use((await openLog(configuration, SILENT, new Registry())) as KafkaLog)
    const foreign = held.use(await ForeignKafka.open(options))
    const { TOPIC_PREFIX: prefix, GROUP: group, CLUSTER_SECRET: secret, STANDBYS: standbys } = configuration
    const { AUTH_TOKEN: token } = configuration
    const headers: ApiAddress['headers'] = token === undefined ? {} : { authorization: `Bearer ${token}` }
    const address = { url: api, headers }
    const stage = await AttachedStage.open({ api: address, mqtt, partitions: log.identity.partitions, standbys })
    const began = await foreign.ends(topicNames(prefix).telemetry)
    return new KafkaEngine(stage, { foreign, log, prefix, group, secret, began, held: held.move() })
  }

  ends(): Promise<readonly number[]> {
    return this.#foreign.ends(this.#names.telemetry)
  }

  committed(): Promise<readonly (Committed | undefined)[]> {
    return this.#foreign.committed(this.#group, this.#names.telemetry)
  }

  async gather(options: GatherOptions): Promise<Gathered> {
    const { prefix, ids, samples } = options
    const looks = new Looks()
    const answers = await looks.at('the answers of the API', () => readApi(this.stage.api, ids))
    const alone = await looks.at('the answers for single devices', () => readAlone(this.stage.api, ids))
    const log = await looks.at('the log', () => this.#read(prefix, samples))
    const { partitions } = this.stage
    const copies =
      log &&
      (await looks.at('the stores', () => this.#copies({ prefix, partitions, statuses: log.input.statuses }, options)))
    return { answers, alone, log, copies, missing: looks.missing }
  }

  async #read(prefix: string, samples: GatherOptions['samples']): Promise<LogReading> {
    const { partitions } = this.stage
    const found = await this.committed()
    const committed = Array.from({ length: partitions }, (_, i) => found[i] ?? { input: 0, changelogEnd: 0 })
    const input = new InputCount(
      prefix,
      committed.map((of) => of.input),
    )
    await this.#foreign.read(this.#names.telemetry, await this.ends(), (record) => input.take(record.partition, record))
    const removed = removedSince(this.#began, await this.#foreign.starts(this.#names.telemetry))
    const changelog = new ChangelogCheck(prefix, samples)
    const changelogEnds = await this.#foreign.read(
      this.#names.status,
      committed.map((of) => of.changelogEnd),
      (record) => changelog.take(record.partition, record),
      true,
    )
    changelog.finish()
    const deadLetters = await deadLettersOf(this.#log, prefix)
    return { input, removed, changelog, committed, changelogEnds, deadLetters }
  }

  /** Of every copy that a member of the group holds whole, as soon as there are those that are due. */
  async #copies(expected: Expected, { copiesDue, wholeWithinMs }: GatherOptions): Promise<CopyReading[]> {
    const deadline = performance.now() + wholeWithinMs
    let copies = await this.#whole()
    // The group may be moving partitions, as it does when all is at rest.
    while (lackingCopy(copies, expected.partitions, copiesDue) !== undefined && performance.now() < deadline) {
      await pause(LOOK_MS)
      copies = await this.#whole()
    }
    const readings: CopyReading[] = []
    for (const { reader, ...of } of copies) {
      readings.push(await readCopy(of, copyPages(reader, of.partition), expected))
    }
    return readings
  }

  async #whole(): Promise<(Pick<CopyReading, 'instance' | 'partition' | 'role'> & { reader: PartitionReader })[]> {
    const { members } = await this.sight.assigned()
    const each = members.map(async (member) => {
      const reader = this.sight.pages.connect(member)
      const running = (await reader.copies()).filter(({ state }) => state === 'running')
      return running.map(({ partition, role }) => ({ instance: member.instance, partition, role, reader }))
    })
    return (await Promise.all(each)).flat()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.sight[Symbol.dispose]()
    await this.#held.disposeAsync()
  }
}

interface Parts {
  readonly foreign: ForeignKafka
  readonly log: Log
  readonly prefix: string
  readonly group: string
  readonly secret: string | undefined
  /** Ends of the telemetry partitions when the drill began; a topic made for it began at 0. */
  readonly began: readonly number[]
  readonly held: AsyncDisposableStack
}

const SILENT = pino({ level: 'silent' })

/** Sooner than the roles, which wait for a Kafka that may be starting. */
async function requireKafka(brokers: readonly string[]): Promise<void> {
  const reached = await Promise.all(brokers.map((broker) => isReached(broker)))
  if (reached.includes(true)) return
  const way = 'start it, correct KAFKA_BROKERS, or unset it to have one started'
  throw new ConfigurationError('LOG_UNAVAILABLE', `no Kafka answers at ${brokers.join(',')}: ${way}`)
}

function isReached(broker: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(hostAndPort(broker))
    const end = (reached: boolean): void => {
      socket.destroy()
      resolve(reached)
    }
    socket.setTimeout(CONNECT_MS, () => end(false))
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
  })
}

/** The Kafka of KAFKA_BROKERS, as the drill and the roles get at it. */
export async function namedKafka(configuration: Configuration, onLeft: (what: string) => void): Promise<NamedKafka> {
  const env: Record<string, string> = {}
  for (const name of ACCESS) {
    const value = configuration[name]
    if (value !== undefined) env[name] = String(value)
  }
  return { ...(await foreignOptions(configuration)), env, onLeft }
}

const ACCESS = [
  'KAFKA_SSL',
  'KAFKA_CA',
  'KAFKA_SASL_MECHANISM',
  'KAFKA_SASL_USERNAME',
  'KAFKA_SASL_PASSWORD',
  'KAFKA_REPLICATION',
  'KAFKA_MIN_INSYNC_REPLICAS',
] as const

async function foreignOptions(configuration: Configuration): Promise<ForeignOptions> {
  const { KAFKA_BROKERS = '', KAFKA_SSL, KAFKA_CA, KAFKA_SASL_MECHANISM: named } = configuration
  const { KAFKA_SASL_USERNAME: username = '', KAFKA_SASL_PASSWORD: password = '' } = configuration
  const ca = KAFKA_CA === undefined ? undefined : await readFile(KAFKA_CA, 'utf8')
  const mechanism = named?.toLowerCase() as 'plain' | 'scram-sha-256' | 'scram-sha-512' | undefined
  return {
    brokers: KAFKA_BROKERS.split(','),
    ssl: ca === undefined ? KAFKA_SSL === 'true' : { ca },
    sasl: mechanism === undefined ? undefined : ({ mechanism, username, password } as ForeignOptions['sasl']),
  }
}
