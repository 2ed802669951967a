import { randomUUID } from 'node:crypto'
import pino from 'pino'
import { Registry } from 'prom-client'
import type { Copy } from '../processor/contract/query.ts'
import type { KafkaLog } from '../processor/log/kafka/kafka-log.ts'
import { openLog } from '../processor/log/open.ts'
import { readEnvironment } from '../processor/runtime/environment.ts'
import { freePorts, isReady, MAIN, Program, removeFolder, temporaryFolder } from './program.ts'

const READY_MS = 90_000

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
  /** Prefix of the topics, and name of the group. */
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

  /** `brokers`: addresses by which this processor alone reaches Kafka. */
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

  /** Starts a processor in `file` instead of main.ts, with further variables, and does not wait until it is ready. */
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

  /** `port`: each further API process needs its own. */
  api(port = this.httpPort): Promise<Program> {
    return this.#start('api', { HTTP_PORT: String(port) }, port)
  }

  get(path: string): Promise<Response> {
    return fetch(`${urlOf(this.httpPort)}${path}`)
  }

  /** The JSON of the answer. Rejects when its status is not 200. */
  async json<T>(path: string): Promise<T> {
    const response = await this.get(path)
    if (response.status !== 200) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`)
    return (await response.json()) as T
  }

  async partitions(): Promise<readonly PartitionAnswer[]> {
    return (await this.json<{ partitions: PartitionAnswer[] }>('/v1/partitions')).partitions
  }

  /** How many partitions each instance owns and runs. */
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
    return (await fetch(`${urlOf(this.#programs.get(program) as number)}/metrics`)).text()
  }

  isReady(program: Program): Promise<boolean> {
    return isReady(urlOf(this.#programs.get(program) as number))
  }

  /** Resolves when the role is ready. */
  async #start(role: string, env: Record<string, string>, port: number): Promise<Program> {
    const program = new Program(this.#entry, [role], { ...this.env, ...env })
    this.#programs.set(program, port)
    try {
      await program.ready(role, urlOf(port), READY_MS)
    } catch (error) {
      await program.kill()
      throw error
    }
    return program
  }

  /** Ends every process with SIGTERM. */
  async stop(): Promise<void> {
    await Promise.all(Array.from(this.#programs.keys(), (program) => program.stop()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(Array.from(this.#programs.keys(), (program) => program.kill()))
    await removeFolder(this.dataDir)
  }
}

function urlOf(port: number): string {
  return `http://127.0.0.1:${port}`
}
