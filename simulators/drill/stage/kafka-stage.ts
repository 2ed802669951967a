import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import pino from 'pino'
import { Registry } from 'prom-client'
import { RemoteReaders } from '../../../api/reader/remote.ts'
import { hostAndPort } from '../../../processor/contract/address.ts'
import { ConfigurationError } from '../../../processor/contract/errors.ts'
import type { Copy, Owner, PartitionReader } from '../../../processor/contract/query.ts'
import type { LogRecord } from '../../../processor/contract/record.ts'
import { decodeAssignment, decodeSubscription } from '../../../processor/log/kafka/group/membership.ts'
import type { KafkaLog } from '../../../processor/log/kafka/kafka-log.ts'
import { type TopicNames, topicNames } from '../../../processor/log/kafka/topics.ts'
import { openLog } from '../../../processor/log/open.ts'
import type { Configuration } from '../../../processor/runtime/environment.ts'
import { pause } from '../../../processor/runtime/pause.ts'
import { Cluster } from '../../cluster.ts'
import { invalid } from '../../flags.ts'
import { Kafka } from '../../kafka/kafka.ts'
import { freePorts } from '../../program.ts'
import { type CopyReading, copyPages, type Expected, lackingCopy, readCopy } from '../checks/copies.ts'
import type { GatherOptions } from './evidence.ts'
import { type KafkaAccess, KafkaClient } from './kafka-client.ts'
import { Balancer, TcpProxy } from './proxies.ts'
import {
  type ApiAddress,
  type Assigned,
  type ClusterView,
  type Committed,
  type LogReader,
  type Role,
  Stage,
} from './stage.ts'

const HOST = '127.0.0.1'
const HEAP_MEBIBYTES = 512
const STANDBYS = 1
const SILENT = pino({ level: 'silent' })

/** The Kafka that KAFKA_BROKERS names. */
export interface NamedKafka extends KafkaAccess {
  /** Environment by which the roles reach it. */
  readonly env: Readonly<Record<string, string>>
  /** Called when the drill's topics could not be removed at its end. */
  readonly onLeft: (what: string) => void
}

export interface KafkaStageOptions {
  /** Undefined: a Kafka is started. */
  readonly named: NamedKafka | undefined
  /** A Kafka that the drill may stop and kill, and that stays when the drill ends. */
  readonly kafka: Kafka | undefined
  readonly processors: number
  /** How many of the processors are up at first. */
  readonly first: number
  readonly apis: number
  readonly partitions: number
  /** The network between the first processor and Kafka can be cut. */
  readonly cuttable: boolean
  readonly entry: string | undefined
}

/**
 * A cluster of processes on Kafka: processors, one ingest, and API processes, behind a balancer when there are several.
 * Resolves when they are ready. Rejects with ConfigurationError when Kafka cannot be had.
 */
export async function startOnKafka(options: KafkaStageOptions, signal: AbortSignal): Promise<Stage> {
  const { named, partitions } = options
  if (named !== undefined) await requireKafka(named.brokers)
  await using held = new AsyncDisposableStack()
  const [proxiedPort] = (await freePorts(1)) as [number]
  const proxy = options.cuttable ? held.use(await TcpProxy.open(proxiedPort)) : undefined
  const proxied = proxy && { port: proxiedPort, advertised: proxy.port }
  const own =
    named === undefined && options.kafka === undefined
      ? held.use(await Kafka.open({ heapMebibytes: HEAP_MEBIBYTES, proxied }))
      : undefined
  signal.throwIfAborted()
  const kafka = options.kafka ?? own
  const brokers = named?.brokers.join(',') ?? (kafka as Kafka).brokers
  const cluster = await Cluster.open(brokers, partitions, named?.env, options.entry)
  const { prefix, secret, dataDir } = cluster
  if (named !== undefined) held.defer(() => removeTopics(named, `${prefix}.`))
  held.use(cluster)
  const apiPorts = options.apis === 1 ? [cluster.httpPort] : await freePorts(options.apis)
  const balancer = options.apis === 1 ? undefined : held.use(await Balancer.open(apiPorts))
  const log = held.use(await cluster.log())
  const client = held.use(await KafkaClient.open(named ?? { brokers: brokers.split(',') }))

  const processors = Array.from({ length: options.processors }, (_, i) => `p${i + 1}`)
  const network = proxy && { target: 'p1', proxy }
  const roles = new Map<string, Role>()
  for (const name of processors) {
    const way = name === network?.target ? `${HOST}:${network.proxy.port}` : brokers
    roles.set(name, { launch: () => cluster.processor(name, way), stores: [join(dataDir, name)] })
  }
  const edges = new Map<string, Role>([['ingest', { launch: () => cluster.ingest(), stores: [] }]])
  apiPorts.forEach((port, i) => edges.set(`api-${i + 1}`, { launch: () => cluster.api(port), stores: [] }))
  return Stage.open(
    {
      mqtt: { host: HOST, port: cluster.mqttPort },
      api: { url: `http://${HOST}:${balancer?.port ?? cluster.httpPort}`, headers: {} },
      partitions,
      standbys: Math.min(STANDBYS, options.processors - 1),
      view: held.use(new KafkaView(client, log, { prefix, group: prefix, secret, began: [] })),
      processors,
      roles: new Map([...roles, ...edges]),
      kafka,
      network,
      held: held.move(),
    },
    [...processors.slice(0, options.first), ...edges.keys()],
    signal,
  )
}

/** A cluster that runs already. Rejects with ConfigurationError when Kafka or the API does not answer. */
export async function attach(configuration: Configuration, url: string, mqtt: Stage['mqtt']): Promise<Stage> {
  if (configuration.KAFKA_BROKERS === undefined) {
    throw invalid('--attach looks at a cluster on Kafka: set KAFKA_BROKERS as its roles have it')
  }
  const access = await accessOf(configuration)
  await requireKafka(access.brokers)
  await using held = new AsyncDisposableStack()
  const log = held.use((await openLog(configuration, SILENT, new Registry())) as KafkaLog)
  const client = held.use(await KafkaClient.open(access))
  const { TOPIC_PREFIX: prefix, GROUP: group, CLUSTER_SECRET: secret, STANDBYS: standbys } = configuration
  const { AUTH_TOKEN: token } = configuration
  const headers: ApiAddress['headers'] = token === undefined ? {} : { authorization: `Bearer ${token}` }
  const api = { url, headers }
  await requireApi(api)
  const began = await client.ends(topicNames(prefix).telemetry)
  const view = held.use(new KafkaView(client, log, { prefix, group, secret, began }))
  const { partitions } = log.identity
  const nothing = { processors: [], roles: new Map(), kafka: undefined, network: undefined }
  return Stage.open({ mqtt, api, partitions, standbys, view, ...nothing, held: held.move() }, [])
}

/** Longest time for one answer of a processor, ms. */
const COPIES_MS = 500
/** The same for a page of statuses, which is read after the run. */
const PAGE_MS = 30_000
/** Pause between two questions for the copies that are whole, ms. */
const POLL_MS = 100

interface ViewOptions {
  readonly prefix: string
  readonly group: string
  readonly secret: string | undefined
  readonly began: readonly number[]
}

/** The group as Kafka's coordinator describes it, and the processors asked one by one: without the API in between. */
class KafkaView implements ClusterView, LogReader, Disposable {
  readonly log: KafkaLog
  readonly began: readonly number[]
  readonly #client: KafkaClient
  readonly #group: string
  readonly #names: TopicNames
  readonly #readers: RemoteReaders
  readonly #pageReaders: RemoteReaders

  constructor(client: KafkaClient, log: KafkaLog, { prefix, group, secret, began }: ViewOptions) {
    this.#client = client
    this.log = log
    this.#group = group
    this.#names = topicNames(prefix)
    this.began = began
    this.#readers = new RemoteReaders({ secret, logger: SILENT, answerWithinMs: COPIES_MS })
    this.#pageReaders = new RemoteReaders({ secret, logger: SILENT, answerWithinMs: PAGE_MS })
  }

  async assigned(): Promise<Assigned> {
    const { stable, members: described } = await this.#client.group(this.#group)
    const holders = new Map<number, Owner>()
    const members: Owner[] = []
    for (const { metadata, assignment } of described) {
      const subscription = decodeSubscription(metadata)
      if (subscription === undefined) continue
      const member = { instance: subscription.instance, endpoint: subscription.endpoint }
      members.push(member)
      for (const partition of decodeAssignment(this.#names, assignment).active) holders.set(partition, member)
    }
    return { stable, holders, members }
  }

  ends(): Promise<readonly number[]> {
    return this.#client.ends(this.#names.telemetry)
  }

  committed(): Promise<readonly (Committed | undefined)[]> {
    return this.#client.committed(this.#group, this.#names.telemetry)
  }

  async reader(): Promise<LogReader> {
    return this
  }

  starts(): Promise<readonly number[]> {
    return this.#client.starts(this.#names.telemetry)
  }

  async telemetry(take: (partition: number, record: LogRecord) => void): Promise<void> {
    await this.#client.read(this.#names.telemetry, await this.ends(), (record) => take(record.partition, record))
  }

  changelog(ends: readonly number[], take: (partition: number, record: LogRecord) => void): Promise<readonly number[]> {
    return this.#client.read(this.#names.status, ends, (record) => take(record.partition, record), true)
  }

  copies(member: Owner): Promise<Copy[]> {
    return this.#readers.connect(member).copies()
  }

  async readCopies(
    expected: Expected,
    { copiesDue, wholeWithinMs }: Pick<GatherOptions, 'copiesDue' | 'wholeWithinMs'>,
  ): Promise<CopyReading[]> {
    const deadline = performance.now() + wholeWithinMs
    let copies = await this.#wholeCopies()
    // The group may move partitions even when all is at rest.
    while (lackingCopy(copies, expected.partitions, copiesDue) !== undefined && performance.now() < deadline) {
      await pause(POLL_MS)
      copies = await this.#wholeCopies()
    }
    const readings: CopyReading[] = []
    for (const { reader, ...of } of copies) {
      readings.push(await readCopy(of, copyPages(reader, of.partition), expected))
    }
    return readings
  }

  async #wholeCopies(): Promise<
    (Pick<CopyReading, 'instance' | 'partition' | 'role'> & { readonly reader: PartitionReader })[]
  > {
    const { members } = await this.assigned()
    const each = members.map(async (member) => {
      const reader = this.#pageReaders.connect(member)
      const running = (await reader.copies()).filter(({ state }) => state === 'running')
      return running.map(({ partition, role }) => ({ instance: member.instance, partition, role, reader }))
    })
    return (await Promise.all(each)).flat()
  }

  /** The view stays open: it ends with the stage. */
  async close(): Promise<void> {}

  [Symbol.dispose](): void {
    this.#readers[Symbol.dispose]()
    this.#pageReaders[Symbol.dispose]()
  }
}

/** A Kafka that somebody named keeps nothing of the drill. */
async function removeTopics(named: NamedKafka, prefix: string): Promise<void> {
  try {
    await using client = await KafkaClient.open(named)
    await client.remove(await client.topics(prefix))
  } catch (error) {
    named.onLeft(`the topics ${prefix}* are left on ${named.brokers.join(',')}: ${(error as Error).message}`)
  }
}

const CONNECT_MS = 3_000

/** Gives up sooner than the roles, which wait for a Kafka that may be starting. */
async function requireKafka(brokers: readonly string[]): Promise<void> {
  const answers = await Promise.all(brokers.map(accepts))
  if (answers.includes(true)) return
  const way = 'start it, correct KAFKA_BROKERS, or unset it to have one started'
  throw new ConfigurationError('LOG_UNAVAILABLE', `no Kafka answers at ${brokers.join(',')}: ${way}`)
}

/** Whether the broker takes connections. */
function accepts(broker: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(hostAndPort(broker))
    const end = (accepted: boolean): void => {
      socket.destroy()
      resolve(accepted)
    }
    socket.setTimeout(CONNECT_MS, () => end(false))
    socket.once('connect', () => end(true))
    socket.once('error', () => end(false))
  })
}

const API_MS = 5_000

/** Throws ConfigurationError when the API is not ready, or wants another token. */
async function requireApi({ url, headers }: ApiAddress): Promise<void> {
  const ask = (path: string): Promise<Response> => fetch(url + path, { headers, signal: AbortSignal.timeout(API_MS) })
  let partitions: Response
  try {
    const ready = await ask('/readyz')
    if (!ready.ok) throw new Error(`/readyz says ${ready.status}: ${(await ready.text()).slice(0, 200)}`)
    partitions = await ask('/v1/partitions')
    await partitions.arrayBuffer()
  } catch (error) {
    const { message, cause } = error as Error
    const why = cause instanceof Error ? cause.message : message
    throw invalid(`the API at ${url} is not ready (${why}): start it, or name another by --api`, error)
  }
  if (partitions.status !== 401 && partitions.status !== 403) return
  const told = `${partitions.status}: ${partitions.headers.get('www-authenticate') ?? ''}`
  const way = 'set AUTH_TOKEN to one with the scopes devices:read and ops:read'
  throw invalid(`the API at ${url} asks for a token (${told}): ${way}`)
}

/** The Kafka of KAFKA_BROKERS, as the drill and the roles reach it. */
export async function namedKafka(configuration: Configuration, onLeft: (what: string) => void): Promise<NamedKafka> {
  const env: Record<string, string> = {}
  for (const name of ACCESS) {
    const value = configuration[name]
    if (value !== undefined) env[name] = String(value)
  }
  return { ...(await accessOf(configuration)), env, onLeft }
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

async function accessOf(configuration: Configuration): Promise<KafkaAccess> {
  const { KAFKA_BROKERS = '', KAFKA_SSL, KAFKA_CA, KAFKA_SASL_MECHANISM: named } = configuration
  const { KAFKA_SASL_USERNAME: username = '', KAFKA_SASL_PASSWORD: password = '' } = configuration
  const ca = KAFKA_CA === undefined ? undefined : await readFile(KAFKA_CA, 'utf8')
  const mechanism = named?.toLowerCase() as 'plain' | 'scram-sha-256' | 'scram-sha-512' | undefined
  return {
    brokers: KAFKA_BROKERS.split(','),
    ssl: ca === undefined ? KAFKA_SSL === 'true' : { ca },
    sasl: mechanism === undefined ? undefined : ({ mechanism, username, password } as KafkaAccess['sasl']),
  }
}
