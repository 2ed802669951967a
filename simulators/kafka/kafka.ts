import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { ConfigurationError } from '../../processor/contract/errors.ts'
import { pause } from '../../processor/runtime/pause.ts'
import { endsWithUs, freePorts, removeFolder, temporaryFolder } from '../program.ts'

const HOST = '127.0.0.1'
/** A broker that was killed reads its logs first, which took over a minute on a busy disk. */
const READY_TIMEOUT_MS = 180_000
const STOP_TIMEOUT_MS = 10_000
const POLL_MS = 50
const ANSWER_TIMEOUT_MS = 1000
// Metadata request, version 1, no topics: size, api key 3, version, correlation id, null client id, 0 topics.
const METADATA_REQUEST = Buffer.from('0000000e0003000100000000ffff00000000', 'hex')
const FIRST_ANSWER_BYTES = 12

export interface KafkaOptions {
  /** Port of the first broker; the others take the ports after it. 0: any free ports. */
  readonly port?: number
  readonly nodes?: 1 | 3
  /** Folder that keeps cluster id and data over restarts. Undefined: a temporary one, removed at the end. */
  readonly data?: string
  /** Maximum heap of each broker. */
  readonly heapMebibytes?: number
  /** Further options of each broker's JVM. */
  readonly jvm?: readonly string[]
  /** Further lines of server.properties. */
  readonly properties?: Readonly<Record<string, string>>
  /** A second plain listener on `port`, for clients that come through a proxy: it tells them to come back at `advertised`. */
  readonly proxied?: { readonly port: number; readonly advertised: number } | undefined
  /** Further arguments of `kafka-storage format`, such as --add-scram. */
  readonly formatArguments?: readonly string[]
  /** Called with the path of the log of a node that ended by itself after it was ready. */
  readonly onFall?: (log: string) => void
}

interface Node {
  readonly id: number
  readonly folder: string
  readonly port: number
  readonly controllerPort: number
}

/** A real Kafka in KRaft mode from Maven artifacts: one JVM per node, no Docker, listening on 127.0.0.1 only. */
export class Kafka implements AsyncDisposable {
  readonly brokers: string
  readonly #nodes: readonly Node[]
  readonly #java: readonly string[]
  readonly #options: KafkaOptions
  readonly #temporary: string | undefined
  readonly #processes = new Map<number, ChildProcess>()
  readonly #dismissed = new WeakSet<ChildProcess>()

  private constructor(
    nodes: readonly Node[],
    java: readonly string[],
    options: KafkaOptions,
    temporary: string | undefined,
  ) {
    this.brokers = nodes.map((node) => `${HOST}:${node.port}`).join(',')
    this.#nodes = nodes
    this.#java = java
    this.#options = options
    this.#temporary = temporary
  }

  /**
   * Resolves when every node answers and knows the others. Throws ConfigurationError when java or mvn is missing, or a
   * port is in use.
   */
  static async open(options: KafkaOptions = {}): Promise<Kafka> {
    const java = await kafkaClasses()
    const count = options.nodes ?? 1
    const data = options.data ?? (await temporaryFolder(join(tmpdir(), 'tidemark-kafka-')))
    const temporary = options.data === undefined ? data : undefined
    const nodes: Node[] = []
    for (let i = 0; i < count; i++) {
      const [controllerPort, free] = (await freePorts(2)) as [number, number]
      const port = options.port === undefined || options.port === 0 ? free : options.port + i
      if (port !== free) await requirePort(port)
      nodes.push({ id: i + 1, folder: join(data, `node-${i + 1}`), port, controllerPort })
    }
    const kafka = new Kafka(nodes, java, options, temporary)
    try {
      const cluster = await clusterId(data)
      await Promise.all(nodes.map((node) => kafka.#format(node, cluster, options)))
      await Promise.all(nodes.map((node) => kafka.start(node.id)))
    } catch (error) {
      await kafka[Symbol.asyncDispose]()
      throw error
    }
    return kafka
  }

  /** Process id of the first node; undefined while it is down. */
  get pid(): number | undefined {
    return this.#processes.get(1)?.pid
  }

  /** Starts a node that is down; resolves when it answers and knows the others. */
  async start(id = 1): Promise<void> {
    if (this.#processes.has(id)) return
    const node = this.#node(id)
    const log = join(node.folder, 'java.log')
    const output = await open(log, 'w')
    const child = spawn('java', this.#arguments(node), { stdio: ['ignore', output.fd, output.fd] })
    this.#processes.set(id, child)
    endsWithUs(child)
    let unspawned: Error | undefined
    child.once('error', (error) => {
      unspawned = error
      this.#processes.delete(id)
    })
    child.once('exit', () => this.#processes.delete(id))
    await output.close()
    const deadline = Date.now() + READY_TIMEOUT_MS
    for (;;) {
      const answers = await this.#answers(node.port)
      if (unspawned !== undefined) throw new Error(`Kafka node ${id} cannot be started: ${unspawned.message}`)
      if (!this.#processes.has(id)) {
        throw new Error(`Kafka node ${id} ended while it started; see ${node.folder}: ${await tail(log)}`)
      }
      if (answers) break
      if (Date.now() > deadline)
        throw new Error(`Kafka node ${id} is not ready after ${READY_TIMEOUT_MS / 1000} s: ${await tail(log)}`)
      await pause(POLL_MS)
    }
    child.once('exit', () => {
      if (!this.#dismissed.has(child)) this.#options.onFall?.(log)
    })
  }

  /** Stops a node with SIGTERM, and kills it when that takes too long; its data stays. */
  async stop(id = 1, withinMs = STOP_TIMEOUT_MS): Promise<void> {
    const child = this.#processes.get(id)
    if (child === undefined) return
    const killer = setTimeout(() => child.kill('SIGKILL'), withinMs)
    await this.#end(child, 'SIGTERM')
    clearTimeout(killer)
  }

  /** Kills a node with SIGKILL; `start` brings it back on its data. */
  async kill(id = 1): Promise<void> {
    const child = this.#processes.get(id)
    if (child !== undefined) await this.#end(child, 'SIGKILL')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A temporary cluster is never read again, so it is killed.
    await Promise.all(this.#nodes.map(({ id }) => (this.#temporary === undefined ? this.stop(id) : this.kill(id))))
    if (this.#temporary !== undefined) await removeFolder(this.#temporary)
  }

  /** Whether the broker at `port` answers and counts all nodes; with TLS or SASL, whether it listens. */
  #answers(port: number): Promise<boolean> {
    const plain = this.#options.properties?.['listener.security.protocol.map'] === undefined
    return new Promise((resolve) => {
      const end = (ready: boolean): void => {
        socket.destroy()
        resolve(ready)
      }
      const socket = connect(port, HOST, () => (plain ? socket.write(METADATA_REQUEST) : end(true)))
      socket.setTimeout(ANSWER_TIMEOUT_MS, () => end(false))
      socket.once('error', () => end(false))
      socket.once('close', () => end(false))
      socket.once('data', (chunk: Buffer) => {
        end(chunk.length >= FIRST_ANSWER_BYTES && chunk.readInt32BE(8) === this.#nodes.length)
      })
    })
  }

  async #end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
    this.#dismissed.add(child)
    const exited = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    await exited
  }

  #node(id: number): Node {
    const node = this.#nodes.find((candidate) => candidate.id === id)
    if (node === undefined) throw new Error(`there is no node ${id} among ${this.#nodes.length}`)
    return node
  }

  #arguments(node: Node): string[] {
    return [
      `-Xmx${this.#options.heapMebibytes ?? 1024}m`,
      '-Xms128m',
      `-Dkafka.logs.dir=${node.folder}`,
      `-Dlog4j2.configurationFile=${join(import.meta.dirname, 'log4j2.xml')}`,
      ...this.#java,
      ...(this.#options.jvm ?? []),
      'kafka.Kafka',
      join(node.folder, 'server.properties'),
    ]
  }

  /** Writes the properties, as ports may have changed since the last start, and formats storage that is not formatted. */
  async #format(node: Node, cluster: string, options: KafkaOptions): Promise<void> {
    await mkdir(node.folder, { recursive: true })
    const file = join(node.folder, 'server.properties')
    const properties = {
      ...serverProperties(node, this.#nodes),
      ...secondListener(node, options),
      ...options.properties,
    }
    await writeFile(
      file,
      Object.entries(properties)
        .map(([name, value]) => `${name}=${value}\n`)
        .join(''),
    )
    if (existsSync(join(node.folder, 'log', 'meta.properties'))) return
    await run('java', [
      '-Xmx128m',
      '-XX:TieredStopAtLevel=1',
      ...this.#java,
      'kafka.tools.StorageTool',
      'format',
      '--cluster-id',
      cluster,
      '--config',
      file,
      ...(options.formatArguments ?? []),
    ])
  }
}

function serverProperties(node: Node, nodes: readonly Node[]): Record<string, string> {
  const replication = String(nodes.length)
  const inSync = String(Math.ceil(nodes.length / 2))
  return {
    'process.roles': 'broker,controller',
    'node.id': String(node.id),
    'controller.quorum.voters': nodes.map(({ id, controllerPort }) => `${id}@${HOST}:${controllerPort}`).join(','),
    listeners: `PLAINTEXT://${HOST}:${node.port},CONTROLLER://${HOST}:${node.controllerPort}`,
    'controller.listener.names': 'CONTROLLER',
    'log.dirs': join(node.folder, 'log'),
    'auto.create.topics.enable': 'false',
    'default.replication.factor': replication,
    'min.insync.replicas': inSync,
    // By default internal topics have three copies, which one node cannot hold, and 50 partitions, which slow its start.
    'offsets.topic.replication.factor': replication,
    'offsets.topic.num.partitions': '8',
    'transaction.state.log.replication.factor': replication,
    'transaction.state.log.min.isr': inSync,
    'transaction.state.log.num.partitions': '8',
    'share.coordinator.state.topic.replication.factor': replication,
    'share.coordinator.state.topic.min.isr': inSync,
    // A first member waits 3 s for others by default.
    'group.initial.rebalance.delay.ms': '0',
    'group.min.session.timeout.ms': '1000',
    'log.cleaner.dedupe.buffer.size': String(32 * 1024 * 1024),
    // A broker that was killed can return only after its session has ended: 9 s by default.
    'broker.session.timeout.ms': '4000',
    'broker.heartbeat.interval.ms': '1000',
  }
}

function secondListener(node: Node, { proxied }: KafkaOptions): Record<string, string> {
  if (proxied === undefined) return {}
  const listeners = `PLAINTEXT://${HOST}:${node.port},PROXIED://${HOST}:${proxied.port}`
  return {
    listeners: `${listeners},CONTROLLER://${HOST}:${node.controllerPort}`,
    'advertised.listeners': `PLAINTEXT://${HOST}:${node.port},PROXIED://${HOST}:${proxied.advertised}`,
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT',
  }
}

async function clusterId(data: string): Promise<string> {
  await mkdir(data, { recursive: true })
  const file = join(data, 'cluster-id')
  if (existsSync(file)) return (await readFile(file, 'utf8')).trim()
  // kafka-storage takes a leading dash for an option.
  const id = `T${randomBytes(16).toString('base64url').slice(1)}`
  await writeFile(file, `${id}\n`)
  return id
}

/** Throws ConfigurationError when the port is in use. */
async function requirePort(port: number): Promise<void> {
  const server = createServer().listen(port, HOST)
  try {
    await once(server, 'listening')
  } catch (cause) {
    const reason = (cause as Error).message
    throw new ConfigurationError('PORT_UNAVAILABLE', `port ${port} of ${HOST} cannot be used: ${reason}`, cause)
  }
  await once(server.close(), 'close')
}

async function tail(file: string): Promise<string> {
  return (await readFile(file, 'utf8')).trim().split('\n').slice(-3).join(' ')
}

/** The version in pom.xml. */
export const KAFKA_VERSION = '4.3.1'

const MIN_JAVA = 17

const ARCHIVE = 'classes.jsa'

/** The folder of Kafka's jars; the first call fetches them by Maven (about 55 MB). */
function jars(): Promise<string> {
  return cachedFolder(`kafka-${KAFKA_VERSION}`, async (unfinished) => {
    const pom = join(import.meta.dirname, 'pom.xml')
    const copy = ['dependency:copy-dependencies', `-DoutputDirectory=${unfinished}`]
    try {
      await run('mvn', ['--batch-mode', '--quiet', '--file', pom, ...copy])
    } catch (error) {
      if (error instanceof ConfigurationError) throw error
      const way = 'mvn must reach a Maven repository (~/.m2/settings.xml may name one)'
      throw new ConfigurationError(
        'INVALID_CONFIGURATION',
        `Kafka cannot be fetched: ${way}: ${(error as Error).message}`,
        error,
      )
    }
    if ((await readdir(unfinished)).length === 0) throw new Error(`mvn copied no jars to ${unfinished}`)
  })
}

function cachePath(name: string): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'tidemark', name)
}

/** A folder of the user's cache. When it does not exist yet, `make` fills it, whole or not at all. */
export async function cachedFolder(name: string, make: (unfinished: string) => Promise<void>): Promise<string> {
  const folder = cachePath(name)
  if (existsSync(folder)) return folder
  await mkdir(dirname(folder), { recursive: true })
  const unfinished = await temporaryFolder(`${folder}-`)
  try {
    await make(unfinished)
    await rename(unfinished, folder)
  } catch (error) {
    // Another process may have won the race.
    if (!existsSync(folder)) throw error
  } finally {
    await removeFolder(unfinished)
  }
  return folder
}

/**
 * Options of java that run Kafka and its tools, from the archive of classes when there is one. Rejects as `requireJava` does.
 */
export async function kafkaClasses(): Promise<readonly string[]> {
  const archive = join(cachePath(archiveName(await requireJava())), ARCHIVE)
  const options = ['-cp', join(await jars(), '*')]
  return existsSync(archive) ? [`-XX:SharedArchiveFile=${archive}`, ...options] : options
}

/**
 * Makes the archive of classes unless there is one; a broker starts with it in half the time. `train` runs a broker with the
 * given options and stops it. Each version of Java needs its own archive.
 */
export async function archiveClasses(train: (options: readonly string[]) => Promise<void>): Promise<void> {
  const name = archiveName(await requireJava())
  await cachedFolder(name, async (unfinished) => {
    const archive = join(unfinished, ARCHIVE)
    await train([`-XX:ArchiveClassesAtExit=${archive}`])
    if (!existsSync(archive)) throw new Error(`java has not made ${archive}`)
  })
}

function archiveName(java: string): string {
  return `kafka-${KAFKA_VERSION}-java-${java}`
}

/** The version of Java. Throws ConfigurationError when it is missing or too old. */
export async function requireJava(): Promise<string> {
  const version = /version "([^"]+)"/.exec(await run('java', ['-version']))?.[1]
  if (version === undefined || Number.parseInt(version, 10) < MIN_JAVA) {
    throw new ConfigurationError('INVALID_CONFIGURATION', `Kafka needs Java ${MIN_JAVA} or newer, found ${version}`)
  }
  return version
}

/** Runs a program to its end; resolves with its output. */
export function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    endsWithUs(child)
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
    child.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') return reject(error)
      const needs = `${program} was not found on PATH; Kafka needs Java ${MIN_JAVA} or newer (java) and Maven (mvn)`
      reject(new ConfigurationError('INVALID_CONFIGURATION', needs))
    })
    child.once('close', (code) => {
      if (code === 0) resolve(said)
      else reject(new Error(`${program} ended with code ${code}: ${said.trim().split('\n').slice(-5).join(' ')}`))
    })
  })
}
