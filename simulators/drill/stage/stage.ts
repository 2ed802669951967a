import type { Copy, Owner } from '../../../processor/contract/query.ts'
import type { LogRecord } from '../../../processor/contract/record.ts'
import type { Log } from '../../../processor/log/log.ts'
import type { Kafka } from '../../kafka/kafka.ts'
import { type Exit, type Program, removeFolder } from '../../program.ts'
import type { CopyReading, Expected } from '../checks/copies.ts'
import type { GatherOptions } from './evidence.ts'
import type { TcpProxy } from './proxies.ts'

/** Where the API is, and the headers of every request to it. */
export interface ApiAddress {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
}

/** The committed offset of a partition: the next input offset, and the end of the changelog that was committed with it. */
export interface Committed {
  readonly input: number
  readonly changelogEnd: number
}

/** Who holds which partition, as the consumer group or the API tells it. */
export interface Assigned {
  readonly stable: boolean
  readonly holders: ReadonlyMap<number, Owner>
  /** Every instance that can be asked for its copies. */
  readonly members: readonly Owner[]
}

/** How a drill looks at a running cluster from outside. A method rejects while Kafka, the API or the member is away. */
export interface ClusterView {
  assigned(): Promise<Assigned>
  copies(member: Owner): Promise<readonly Copy[]>
  /** Ends of the telemetry partitions; undefined where only the owners know them. */
  ends(): Promise<readonly number[] | undefined>
  /** By partition; empty where it cannot be seen from outside. */
  committed(): Promise<readonly (Committed | undefined)[]>
  /** Opens the log when the run is over. The embedded log can be read only after its process has been killed. */
  reader(stage: Stage): Promise<LogReader>
}

/** Reads the log and the copies of the partitions after a run. */
export interface LogReader {
  readonly log: Log
  /** Ends of the telemetry partitions when the drill began; a partition without one was empty. */
  readonly began: readonly number[]
  committed(): Promise<readonly (Committed | undefined)[]>
  /** Offset of the first telemetry record that is still there, by partition. */
  starts(): Promise<readonly number[]>
  telemetry(take: (partition: number, record: LogRecord) => void): Promise<void>
  /** Reads beyond `ends` too. Resolves with the offset after the last record of each partition. */
  changelog(ends: readonly number[], take: (partition: number, record: LogRecord) => void): Promise<readonly number[]>
  /** All copies that are whole. */
  readCopies(expected: Expected, options: GatherOptions): Promise<CopyReading[]>
  close(): Promise<void>
}

/** One process of a stage, which the drill may end and start again. */
export interface Role {
  /** Resolves when the process is ready. */
  readonly launch: () => Promise<Program>
  /** Folders of the stores that the process has. */
  readonly stores: readonly string[]
}

/** A process that ended without being told to. */
export interface Fall {
  readonly target: string
  readonly exit: Exit
  /** The end of its output on stderr. */
  readonly said: string
}

interface StageParts {
  readonly mqtt: { readonly host: string; readonly port: number }
  readonly api: ApiAddress
  readonly partitions: number
  readonly standbys: number
  readonly view: ClusterView
  /** Targets that are processors; empty for an attached cluster. */
  readonly processors: readonly string[]
  /** Empty for an attached cluster: its processes are somebody else's. */
  readonly roles: ReadonlyMap<string, Role>
  /** The target `kafka`, where the drill may stop and kill it. */
  readonly kafka: Kafka | undefined
  /** The way of one processor to Kafka, which can be cut. */
  readonly network: { readonly target: string; readonly proxy: TcpProxy } | undefined
  readonly held: AsyncDisposable
}

/**
 * What a drill plays on: processes that it starts and ends by name, and the cluster that they make up. The targets are
 * `p1` …, `ingest`, `api-1` … and `kafka` on Kafka, and `tidemark` for the one process on the embedded log. A cluster that
 * the drill was attached to has no targets.
 */
export class Stage implements AsyncDisposable {
  readonly mqtt: StageParts['mqtt']
  readonly api: ApiAddress
  readonly partitions: number
  readonly standbys: number
  readonly view: ClusterView
  readonly processors: readonly string[]
  /** Processors that should be up now. */
  readonly up = new Set<string>()
  readonly falls: Fall[] = []
  readonly #parts: StageParts
  readonly #programs = new Map<string, Program>()
  /** Programs that the drill ended itself. */
  readonly #dismissed = new Set<Program>()

  private constructor(parts: StageParts) {
    this.mqtt = parts.mqtt
    this.api = parts.api
    this.partitions = parts.partitions
    this.standbys = parts.standbys
    this.view = parts.view
    this.processors = parts.processors
    this.#parts = parts
  }

  /** Resolves when the targets named `first` are ready. */
  static async open(parts: StageParts, first: readonly string[], signal?: AbortSignal): Promise<Stage> {
    const stage = new Stage(parts)
    try {
      await Promise.all(first.map((target) => stage.start(target)))
      signal?.throwIfAborted()
    } catch (error) {
      await stage[Symbol.asyncDispose]()
      throw error
    }
    return stage
  }

  /** Targets that run now. */
  get running(): readonly string[] {
    return [...this.#programs.keys(), ...(this.#parts.kafka === undefined ? [] : ['kafka'])]
  }

  /** How many standbys each partition has when all is well; `members`: how many the group has. */
  standbysDue(members: number): number {
    // The processors of the embedded log are one process.
    if (this.processors.length === 1) return this.standbys
    return Math.min(this.standbys, (this.processors.length === 0 ? members : this.up.size) - 1)
  }

  async start(target: string): Promise<void> {
    if (target === 'kafka') return this.#kafka.start()
    if (this.processors.includes(target)) this.up.add(target)
    try {
      const program = await this.#role(target).launch()
      this.#programs.set(target, program)
      void this.#watch(target, program)
    } catch (error) {
      this.up.delete(target)
      throw error
    }
  }

  /** SIGTERM. Rejects when the process does not end with code 0. */
  async stop(target: string): Promise<void> {
    if (target === 'kafka') return this.#kafka.stop()
    const exit = await this.#dismiss(target).stop()
    if (exit.code !== 0) throw new Error(`${target} did not stop in order: it ended with ${JSON.stringify(exit)}`)
  }

  async kill(target: string): Promise<void> {
    if (target === 'kafka') return this.#kafka.kill()
    await this.#dismiss(target).kill()
  }

  async freeze(target: string): Promise<void> {
    this.up.delete(target)
    this.#program(target).child.kill('SIGSTOP')
  }

  async thaw(target: string): Promise<void> {
    this.#program(target).child.kill('SIGCONT')
    this.up.add(target)
  }

  /** Cuts the network between a processor and Kafka. */
  async cut(target: string): Promise<void> {
    this.#network(target).cut()
    this.up.delete(target)
  }

  async heal(target: string): Promise<void> {
    this.#network(target).heal()
    this.up.add(target)
  }

  /** Removes the stores of a processor that is down. */
  async wipe(target: string): Promise<void> {
    if (this.#programs.has(target)) throw new Error(`${target} runs: its store folder cannot be taken from it`)
    await Promise.all(this.#role(target).stores.map((folder) => removeFolder(folder)))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(Array.from(this.#programs.keys(), (target) => this.#dismiss(target).kill()))
    await this.#parts.held[Symbol.asyncDispose]()
  }

  #role(target: string): Role {
    const role = this.#parts.roles.get(target)
    if (role === undefined) throw new Error(`${target} is not the drill's own: it is neither started nor ended`)
    return role
  }

  get #kafka(): Kafka {
    const { kafka } = this.#parts
    if (kafka === undefined) throw new Error("this Kafka is not the drill's own: it is neither stopped nor killed")
    return kafka
  }

  #network(target: string): TcpProxy {
    const { network } = this.#parts
    if (network?.target !== target) throw new Error(`the network of ${target} cannot be cut`)
    return network.proxy
  }

  async #watch(target: string, program: Program): Promise<void> {
    const exit = await program.exited
    if (this.#programs.get(target) === program) this.#programs.delete(target)
    if (this.#dismissed.delete(program)) return
    this.falls.push({ target, exit, said: program.stderr.trim().split('\n').slice(-3).join(' ') })
  }

  #dismiss(target: string): Program {
    this.up.delete(target)
    const program = this.#program(target)
    this.#dismissed.add(program)
    return program
  }

  #program(target: string): Program {
    const program = this.#programs.get(target)
    if (program === undefined) throw new Error(`${target} does not run`)
    return program
  }
}
