import { randomUUID } from 'node:crypto'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import type { DeviceWriter, OwnerMap, PartitionReader } from '../processor/contract/query.ts'
import type { ChangeFeed, LetterReader } from '../processor/contract/record.ts'
import type { Audit } from '../processor/runtime/audit.ts'
import type { Configuration } from '../processor/runtime/environment.ts'
import { systemClock } from '../processor/runtime/pause.ts'
import { type Access, Tokens } from './auth/tokens.ts'
import { trustedProxies } from './http/request.ts'
import { MAX_QUEUED_MS } from './reader/exchange.ts'
import { LocalReaders, PATIENCE_MS } from './reader/local.ts'
import { RoutedReader } from './reader/reader.ts'
import { RemoteReaders } from './reader/remote.ts'
import { ApiServer } from './server.ts'

/** A monotonic clock, ms. */
const steady = () => performance.now()
/** How often a read looks for a copy of a partition that moves, 100 ms apart. */
const READ_ATTEMPTS = 6

export interface ApiOptions {
  readonly configuration: Configuration
  readonly access: Access
  readonly maxConnections: number
  readonly version: string
  readonly partitions: number
  readonly owners: () => Promise<OwnerMap>
  /** Returns the copies in this process that the endpoint stands for. */
  readonly local: (endpoint: string) => PartitionReader | undefined
  /** No other process holds copies. */
  readonly alone: boolean
  readonly writer: DeviceWriter
  readonly letters: LetterReader
  readonly feed: ChangeFeed
  /** See ServerOptions. */
  readonly notice: () => Promise<unknown>
  readonly logger: Logger
  readonly audit?: Audit
  readonly registry: Registry
  /** Resources added later are disposed earlier. */
  readonly running: AsyncDisposableStack
  /** Each names problems that make the process not ready. The API adds its own. */
  readonly checks: (() => Promise<readonly string[]>)[]
  readonly problems: () => Promise<readonly string[]>
}

/** Opens the API on its socket and resolves with its URL. Rejects with ConfigurationError. */
export async function openApi(options: ApiOptions): Promise<string> {
  const { configuration, access, maxConnections, partitions, owners, local, alone, logger, registry, running, checks } =
    options
  const { tokens: settings, host, tls } = access
  const tokens = settings && (await Tokens.open({ ...settings, logger, now: Date.now, steady }))
  const remotes = alone ? undefined : running.use(new RemoteReaders({ secret: configuration.CLUSTER_SECRET, logger }))
  const locals = new LocalReaders({ alone })
  const here = (endpoint: string) => {
    const held = local(endpoint)
    return held && locals.of(held)
  }
  const reader = new RoutedReader({
    partitions,
    owners,
    connect: (owner, patient) => here(owner.endpoint) ?? remotes?.connect(owner, patient),
    attempts: alone ? 1 : READ_ATTEMPTS,
    // A process that is alone asks its only copy once. The local reader reports a search that takes too long.
    searchQueuedMs: alone ? MAX_QUEUED_MS + PATIENCE_MS : MAX_QUEUED_MS,
    logger,
    now: steady,
  })
  checks.push(() => (alone ? unserved(reader) : unanswerable(reader, configuration)))
  if (tokens !== undefined) checks.push(async () => tokens.check())
  const { HTTP_KEEP_ALIVE_SECONDS: idle } = configuration
  const api = await ApiServer.open({
    reader,
    limits: { maxConnections, ...(idle === undefined ? {} : { keepAliveTimeoutMs: idle * 1000 }) },
    writer: options.writer,
    letters: options.letters,
    changes: { feed: options.feed, clock: systemClock, random: Math.random },
    checks: options.problems,
    version: options.version,
    tokens,
    forThisMachine: configuration.AUTH === undefined,
    ratePerMinute: configuration.HTTP_REQUESTS_PER_MINUTE,
    trustedProxies: trustedProxies(configuration.HTTP_TRUSTED_PROXIES),
    requestIdPrefix: randomUUID().slice(0, 8),
    notice: options.notice,
    host,
    hostVariable: configuration.HTTP_HOST === undefined ? 'HOST' : 'HTTP_HOST',
    port: configuration.HTTP_PORT,
    tls,
    ...(options.audit === undefined ? {} : { audit: options.audit }),
    registry,
    logger,
  })
  running.use(api)
  return api.url
}

/** In a process that is alone every partition must have its owner. */
async function unserved(reader: RoutedReader): Promise<string[]> {
  const missing = (await reader.partitions()).filter(({ owner }) => owner?.state !== 'running')
  if (missing.length === 0) return []
  return [`partitions not yet served by an owner: ${missing.map((info) => info.partition).join(', ')}`]
}

/**
 * In a cluster neither a moving partition nor an absent Kafka takes an API process out of service. One that finds
 * nobody to ask is of no use.
 */
async function unanswerable(reader: RoutedReader, { GROUP, TOPIC_PREFIX }: Configuration): Promise<string[]> {
  if (await reader.mayAnswer()) return []
  return [
    `no processor answers for any partition (GROUP=${GROUP}, TOPIC_PREFIX=${TOPIC_PREFIX}, as the processors have them)`,
  ]
}
