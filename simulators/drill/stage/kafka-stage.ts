import { join } from 'node:path'
import { Cluster } from '../../cluster.ts'
import { Kafka } from '../../kafka/kafka.ts'
import { freePorts, Program, removeFolder } from '../../program.ts'
import { Balancer, Detour } from './balancer.ts'
import { ForeignKafka, type ForeignOptions } from './foreign.ts'
import { type ApiAddress, Cast, type Stage } from './stage.ts'

const HEAP_MEBIBYTES = 512
const STANDBYS = 1

export interface NamedKafka extends ForeignOptions {
  /** How the roles get at it. */
  readonly env: Readonly<Record<string, string>>
  /** Told when the drill's topics are still there at its end. */
  readonly onLeft: (what: string) => void
}

export interface KafkaStageOptions {
  /** A Kafka that is there; undefined: one is started. */
  readonly named: NamedKafka | undefined
  /** One to use, and to stop and kill, without ending it with the drill. */
  readonly kafka: Kafka | undefined
  readonly processors: number
  /** Of the processors: how many are up at first. */
  readonly first: number
  readonly apis: number
  readonly partitions: number
  /** The first processor reaches Kafka by a way that can be cut. */
  readonly detour: boolean
  readonly entry: string | undefined
}

/** A cluster of processes on Kafka: processors, one ingest, and API processes, behind a balancer when there are several. */
export class KafkaStage implements Stage {
  readonly kafka: Kafka | undefined
  readonly cluster: Cluster
  readonly brokers: string
  readonly processors: readonly string[]
  readonly partitions: number
  readonly standbys: number
  readonly up = new Set<string>()
  readonly #cast = new Cast()
  readonly #held: AsyncDisposableStack
  readonly #apiPorts: readonly number[]
  readonly #detour: { readonly port: number; readonly proxy: Detour } | undefined
  readonly api: ApiAddress

  private constructor(options: KafkaStageOptions, parts: Parts) {
    this.kafka = parts.kafka
    this.cluster = parts.cluster
    this.brokers = parts.brokers
    this.partitions = options.partitions
    this.standbys = Math.min(STANDBYS, options.processors - 1)
    this.processors = Array.from({ length: options.processors }, (_, i) => `p${i + 1}`)
    this.#apiPorts = parts.apiPorts
    this.#detour = parts.detour
    this.#held = parts.held
    this.api = { url: `http://127.0.0.1:${parts.apiPort}`, headers: {} }
  }

  /** Resolves when all that should be up is ready. Rejects with ConfigurationError when Kafka cannot be had. */
  static async open(options: KafkaStageOptions, signal: AbortSignal): Promise<KafkaStage> {
    await using held = new AsyncDisposableStack()
    const detour = options.detour ? await openDetour() : undefined
    if (detour !== undefined) held.use(detour.proxy)
    const way = detour && { port: detour.port, advertised: detour.proxy.port }
    const own =
      options.named === undefined && options.kafka === undefined
        ? held.use(await Kafka.open({ heapMebibytes: HEAP_MEBIBYTES, detour: way }))
        : undefined
    signal.throwIfAborted()
    const kafka = options.kafka ?? own
    const { named } = options
    const brokers = named?.brokers.join(',') ?? (kafka as Kafka).brokers
    const cluster = await Cluster.open(brokers, options.partitions, named?.env, options.entry)
    if (named !== undefined) held.defer(() => removeTopics(named, `${cluster.prefix}.`))
    held.use(cluster)
    const apiPorts = options.apis === 1 ? [cluster.httpPort] : await freePorts(options.apis)
    const balancer = options.apis === 1 ? undefined : held.use(await Balancer.open(apiPorts))
    const apiPort = balancer?.port ?? cluster.httpPort
    const stage = new KafkaStage(options, {
      kafka,
      cluster,
      brokers,
      apiPorts,
      apiPort,
      detour,
      held: held.move(),
    })
    try {
      const first = [...stage.processors.slice(0, options.first), ...stage.#edges]
      await Promise.all(first.map((target) => stage.start(target)))
      signal.throwIfAborted()
    } catch (error) {
      await stage[Symbol.asyncDispose]()
      throw error
    }
    return stage
  }

  get mqtt(): Stage['mqtt'] {
    return { host: '127.0.0.1', port: this.cluster.mqttPort }
  }

  get falls(): Stage['falls'] {
    return this.#cast.falls
  }

  get #edges(): string[] {
    return ['ingest', ...this.#apiPorts.map((_, i) => `api-${i + 1}`)]
  }

  get left(): string[] {
    return [...this.#cast.names, ...(this.kafka === undefined ? [] : ['kafka'])]
  }

  async start(target: string): Promise<void> {
    if (target === 'kafka') return this.#ownKafka.start()
    if (this.processors.includes(target)) this.up.add(target)
    try {
      this.#cast.enter(target, await this.#launch(target))
    } catch (error) {
      this.up.delete(target)
      throw error
    }
  }

  async stop(target: string): Promise<void> {
    if (target === 'kafka') return this.#ownKafka.stop()
    this.up.delete(target)
    await this.#cast.stop(target)
  }

  async kill(target: string): Promise<void> {
    if (target === 'kafka') return this.#ownKafka.kill()
    this.up.delete(target)
    await this.#cast.kill(target)
  }

  async freeze(target: string): Promise<void> {
    this.up.delete(target)
    this.#cast.freeze(target)
  }

  async thaw(target: string): Promise<void> {
    this.#cast.thaw(target)
    this.up.add(target)
  }

  async cut(target: string): Promise<void> {
    this.#way(target).cut()
    this.up.delete(target)
  }

  async heal(target: string): Promise<void> {
    this.#way(target).heal()
    this.up.add(target)
  }

  async wipe(target: string): Promise<void> {
    if (this.#cast.has(target)) throw new Error(`${target} runs: its store folder cannot be taken from it`)
    await removeFolder(join(this.cluster.dataDir, target))
  }

  #launch(target: string): Promise<Program> {
    if (target === 'ingest') return this.cluster.ingest()
    const api = /^api-(\d+)$/.exec(target)
    if (api !== null) return this.cluster.api(this.#apiPorts[Number(api[1]) - 1])
    const detoured = this.#detour !== undefined && target === this.processors[0]
    return this.cluster.processor(target, detoured ? `127.0.0.1:${this.#detour?.proxy.port}` : this.brokers)
  }

  #way(target: string): Detour {
    if (this.#detour === undefined || target !== this.processors[0]) throw new Error(`${target} has no way of its own`)
    return this.#detour.proxy
  }

  get #ownKafka(): Kafka {
    if (this.kafka === undefined) throw new Error("this Kafka is not the drill's own: it is neither stopped nor killed")
    return this.kafka
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cast.killAll()
    await this.#held.disposeAsync()
  }
}

interface Parts {
  readonly kafka: Kafka | undefined
  readonly cluster: Cluster
  readonly brokers: string
  readonly apiPorts: readonly number[]
  readonly apiPort: number
  readonly detour: { readonly port: number; readonly proxy: Detour } | undefined
  readonly held: AsyncDisposableStack
}

/** A Kafka that is not the drill's own keeps nothing of it. */
async function removeTopics(named: NamedKafka, prefix: string): Promise<void> {
  try {
    await using foreign = await ForeignKafka.open(named)
    await foreign.remove(await foreign.topics(prefix))
  } catch (error) {
    named.onLeft(`the topics ${prefix}* are left on ${named.brokers.join(',')}: ${(error as Error).message}`)
  }
}

async function openDetour(): Promise<{ port: number; proxy: Detour }> {
  const [port] = (await freePorts(1)) as [number]
  return { port, proxy: await Detour.open(() => port) }
}
