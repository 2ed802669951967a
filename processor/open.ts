import { join } from 'node:path'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { isLoopback } from './contract/address.ts'
import { ConfigurationError } from './contract/errors.ts'
import type { EmbeddedLog } from './log/embedded/embedded-log.ts'
import type { KafkaLog } from './log/kafka/kafka-log.ts'
import { openDatabase, Processor } from './processor.ts'
import { QueryServer } from './query/query-server.ts'
import type { Configuration } from './runtime/environment.ts'
import { instanceOf } from './runtime/instance.ts'
import { MEMORY_SHARE } from './runtime/resources.ts'
import type { Database } from './store/level-store.ts'

const MAX_PORT = 65_535

export interface Beginning {
  readonly instance: string
  readonly folder: string
  /** It may still be opening. */
  readonly database: Database
}

/**
 * Begins what needs no log: it opens the stores of `count` processors, which close with `running`. Rejects with
 * ConfigurationError when there is no place for them.
 */
export async function beginProcessors(
  { DATA_DIR, INSTANCE_ID, KAFKA_BROKERS, QUERY_PORT, HOST, CLUSTER_SECRET }: Configuration,
  count: number,
  running: AsyncDisposableStack,
): Promise<readonly Beginning[]> {
  if (KAFKA_BROKERS !== undefined) {
    checkPorts(QUERY_PORT, count)
    if (CLUSTER_SECRET === undefined && !isLoopback(HOST)) {
      const message = `HOST=${HOST}: a processor would answer anyone who reaches this address; set CLUSTER_SECRET`
      throw new ConfigurationError('INVALID_CONFIGURATION', `${message}, the same in every process, or HOST=127.0.0.1`)
    }
  }
  const name = INSTANCE_ID ?? (KAFKA_BROKERS === undefined ? 'tidemark-1' : await instanceOf(DATA_DIR))
  return Array.from({ length: count }, (_, i) => {
    const instance = i === 0 ? name : `${name}-${i + 1}`
    const folder = join(DATA_DIR, instance)
    const database = openDatabase(folder)
    running.defer(() => database.close())
    return { instance, folder, database }
  })
}

/** Further processors of one process take the ports after the first's. */
function portOf(first: number, i: number): number {
  return first === 0 ? 0 : first + i
}

function checkPorts(first: number, count: number): void {
  if (portOf(first, count - 1) <= MAX_PORT) return
  const way = `set QUERY_PORT to ${MAX_PORT - count + 1} or less, or to 0 for any free ports`
  throw new ConfigurationError(
    'INVALID_CONFIGURATION',
    `QUERY_PORT=${first}: ${count} processors take as many ports from it on, and ports end at ${MAX_PORT}; ${way}`,
  )
}

export interface ProcessorsOptions {
  readonly configuration: Configuration
  /** Each has its stores and, on Kafka, its endpoint. */
  readonly beginnings: readonly Beginning[]
  readonly log: EmbeddedLog | KafkaLog
  readonly logger: Logger
  readonly registry: Registry
  /** Resources added later are disposed earlier. */
  readonly running: AsyncDisposableStack
  /** Each names problems that make the process not ready. The processors add theirs. */
  readonly checks: (() => Promise<readonly string[]>)[]
  /** The problems of all checks. */
  readonly problems: () => Promise<readonly string[]>
  /** Called when a processor cannot go on. */
  readonly fail: (error: unknown) => void
}

/** Starts the processors of this process in the group, by endpoint. Rejects with ConfigurationError. */
export async function openProcessors(options: ProcessorsOptions): Promise<ReadonlyMap<string, Processor>> {
  const { configuration, beginnings, log, logger, registry, running, checks, problems, fail } = options
  const { HOST: host, QUERY_PORT, CLUSTER_SECRET: secret } = configuration
  const kafka = 'memberIds' in log ? log : undefined
  const processors = new Map<string, Processor>()
  const servers: QueryServer[] = []
  // Before the endpoints: each answers as soon as it listens.
  checks.push(async () => {
    const unclaimed = kafka === undefined ? [] : told(kafka, beginnings.length)
    if (unclaimed === undefined) return ['a processor is not in the group yet']
    const copies = (await Promise.all([...processors.values()].map(({ reader }) => reader.copies()))).flat()
    const restoring = copies.filter((copy) => copy.role === 'owner' && copy.state !== 'running')
    return [
      ...unclaimed.map((partition) => `partition ${partition} is being taken`),
      ...restoring.map(({ partition }) => `partition ${partition} is being restored`),
      ...[...processors.values()].flatMap((processor) => processor.problems),
    ]
  })
  for (const [i, { instance, folder, database: opening }] of beginnings.entries()) {
    const port = portOf(QUERY_PORT, i)
    const server =
      kafka === undefined
        ? undefined
        : running.use(await QueryServer.open({ host, port, instance, secret, checks: problems, registry, logger }))
    const endpoint = server?.address ?? `local:${instance}`
    const processor = await Processor.open({
      log,
      instance,
      endpoint,
      folder,
      opening,
      logger,
      registry,
      now: Date.now,
    })
    running.use(processor)
    if (server !== undefined) {
      server.serve(processor.reader)
      servers.push(server)
    }
    processors.set(endpoint, processor)
  }
  if (MEMORY_SHARE < 1) {
    const share = Math.round(MEMORY_SHARE * 100) / 100
    logger.info(
      { share },
      'there is less memory than 1 GiB, or V8 may use less than 512 MiB: caches and buffers are smaller',
    )
  }
  // The processors leave the group before their stores close, and answer until they have left. That the endpoints close
  // then tells the peers to look at the group at once.
  const leave = new AbortController()
  const memberships = [...processors.values()].map((processor) => processor.run(leave.signal).catch(fail))
  running.defer(async () => {
    leave.abort()
    await Promise.all(memberships)
    await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()))
  })
  return processors
}

/**
 * The partitions that members of this process must own and have not taken. Undefined until the group has told each of
 * `count`.
 */
function told(log: KafkaLog, count: number): number[] | undefined {
  const { memberIds, unclaimed } = log
  const known = unclaimed.filter((partitions) => partitions !== undefined)
  return memberIds.length < count || known.length < count ? undefined : known.flat()
}
