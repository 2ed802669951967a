import { randomUUID } from 'node:crypto'
import pino from 'pino'
import { Registry } from 'prom-client'
import { readEnvironment } from '../processor/contract/environment.ts'
import type { Copy } from '../processor/contract/query.ts'
import type { KafkaLog } from '../processor/log/kafka.ts'
import { openLog } from '../processor/log/open.ts'
import { pause } from '../processor/pause.ts'
import { freePorts } from './ports.ts'
import { MAIN, Program, removeFolder, temporaryFolder } from './program.ts'

const READY_MS = 90_000
const POLL_MS = 10

export interface PartitionAnswer {
  readonly partition: number
  readonly owner: Copy | null
  readonly standbys: readonly Copy[]
}

/** The roles of one cluster as processes of their own, on a Kafka that is there already. */
export class Cluster implements AsyncDisposable {
  readonly mqttPort: number
  readonly httpPort: number
  readonly brokers: string
  readonly #partitions: number
  readonly dataDir: string
  /** Of the topics, and the name of the group. */
  readonly prefix = `cluster-${randomUUID()}`
  readonly secret = 'held-by-all-roles-of-this-cluster'
  readonly #env: Readonly<Record<string, string>>
  readonly #entry: string
  readonly #programs = new Map<Program, number>()

  private constructor(
    brokers: string,
    partitions: number,
    env: Readonly<Record<string, string>>,
    folder: string,
    ports: readonly number[],
    entry: string,
  ) {
    this.#entry = entry
    this.brokers = brokers
    this.#partitions = partitions
    this.#env = env
    this.dataDir = folder
    this.mqttPort = ports[0] as number
    this.httpPort = ports[1] as number
  }

  /** `env`: further variables of every role; `entry`: the file that starts one. */
  static async open(
    brokers: string,
    partitions: number,
    env: Readonly<Record<string, string>> = {},
    entry = MAIN,
  ): Promise<Cluster> {
    return new Cluster(brokers, partitions, env, await temporaryFolder(), await freePorts(2), entry)
  }

  get env(): Record<string, string> {
    return {
      HOST: '127.0.0.1',
      KAFKA_BROKERS: this.brokers,
      TOPIC_PREFIX: this.prefix,
      GROUP: this.prefix,
      PARTITIONS: String(this.#partitions),
      MQTT_PORT: String(this.mqttPort),
      HTTP_PORT: String(this.httpPort),
      CLUSTER_SECRET: this.secret,
      LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'warn',
      ...this.#env,
    }
  }

  async ingest(): Promise<Program> {
    const [port] = await freePorts(1)
    return this.#start('ingest', { HEALTH_PORT: String(port) }, port as number)
  }

  /** `brokers`: where this one finds Kafka, when not where the others do. */
  async processor(instance: string, brokers = this.brokers): Promise<Program> {
    const [port] = await freePorts(1)
    const env = {
      QUERY_PORT: String(port),
      INSTANCE_ID: instance,
      DATA_DIR: this.dataDir,
      KAFKA_BROKERS: brokers,
    }
    return this.#start('processor', env, port as number)
  }

  /** A processor that begins in `file` instead of main.ts, with further variables. It is not waited for. */
  processorIn(file: string, instance: string, env: Readonly<Record<string, string>>): Program {
    const program = new Program(file, ['processor'], {
      ...this.env,
      INSTANCE_ID: instance,
      DATA_DIR: this.dataDir,
      ...env,
    })
    this.#programs.set(program, 0)
    return program
  }

  /** Of further ones, each has a port of its own. */
  api(port = this.httpPort): Promise<Program> {
    return this.#start('api', { HTTP_PORT: String(port) }, port)
  }

  get(path: string): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.httpPort}${path}`)
  }

  /** The JSON of an answer that must be 200. */
  async json<T>(path: string): Promise<T> {
    const response = await this.get(path)
    if (response.status !== 200) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`)
    return (await response.json()) as T
  }

  async partitions(): Promise<readonly PartitionAnswer[]> {
    return (await this.json<{ partitions: PartitionAnswer[] }>('/v1/partitions')).partitions
  }

  /** Of the running owners: partitions by instance. */
  async owned(): Promise<Record<string, number>> {
    const counts: Record<string, number> = {}
    for (const { owner } of await this.partitions()) {
      if (owner?.state === 'running') counts[owner.instance] = (counts[owner.instance] ?? 0) + 1
    }
    return counts
  }

  log(): Promise<KafkaLog> {
    return openLog(readEnvironment(this.env), pino({ level: 'silent' }), new Registry()) as Promise<KafkaLog>
  }

  /** Prometheus text of an ingest or a processor process. */
  async metrics(program: Program): Promise<string> {
    return (await fetch(`http://127.0.0.1:${this.#programs.get(program)}/metrics`)).text()
  }

  isReady(program: Program): Promise<boolean> {
    return isReady(this.#programs.get(program) as number)
  }

  /** Resolves when the role is ready. */
  async #start(role: string, env: Record<string, string>, port: number): Promise<Program> {
    const program = new Program(this.#entry, [role], { ...this.env, ...env })
    this.#programs.set(program, port)
    const deadline = performance.now() + READY_MS
    while (!(await isReady(port))) {
      if (program.exit !== undefined) throw new Error(`${role} ended: ${program.stderr.slice(-2_000)}`)
      if (performance.now() > deadline) {
        await program.kill()
        throw new Error(`${role} is not ready after ${READY_MS / 1000} s: ${program.stderr.slice(-2_000)}`)
      }
      await pause(POLL_MS)
    }
    return program
  }

  /** Ends every process in order. */
  async stop(): Promise<void> {
    await Promise.all(Array.from(this.#programs.keys(), (program) => program.stop()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(Array.from(this.#programs.keys(), (program) => program.kill()))
    await removeFolder(this.dataDir)
  }
}

async function isReady(port: number): Promise<boolean> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`)
    await response.arrayBuffer()
    return response.ok
  } catch (error) {
    if (error instanceof TypeError) return false
    throw error
  }
}
