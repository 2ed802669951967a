import { ConfigurationError } from '../../../processor/contract/errors.ts'
import type { Exit, Program } from '../../program.ts'

/** Where the API is, and what every request to it must have. */
export interface ApiAddress {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
}

/** A process that ended without being told to. */
export interface Fall {
  readonly target: string
  readonly exit: Exit
  /** The last it said. */
  readonly said: string
}

/**
 * What a drill plays on: the processes of a cluster on Kafka, the one process of the embedded engine, or a cluster that
 * runs already. Targets are named `p1` …, `ingest`, `api-1` …, `kafka`; the embedded engine is `tidemark`.
 */
export interface Stage extends AsyncDisposable {
  readonly mqtt: { readonly host: string; readonly port: number }
  readonly api: ApiAddress
  readonly partitions: number
  readonly standbys: number
  readonly processors: readonly string[]
  /** Processes that ended by themselves. */
  readonly falls: readonly Fall[]
  /** Of the processors: those that should be up now. */
  readonly up: ReadonlySet<string>
  start(target: string): Promise<void>
  /** SIGTERM, and waits for the end. */
  stop(target: string): Promise<void>
  kill(target: string): Promise<void>
  freeze(target: string): Promise<void>
  thaw(target: string): Promise<void>
  /** The network between a processor and Kafka. */
  cut(target: string): Promise<void>
  heal(target: string): Promise<void>
  /** Removes the store folder of a processor that is down. */
  wipe(target: string): Promise<void>
  /** What is still there to be ended, in words. */
  readonly left: readonly string[]
}

/** How many standbys each partition has when all is well; `members`: of the group, which alone tell it of an attached cluster. */
export function standbysDue({ processors, standbys, up }: Stage, members: number): number {
  // The processors of the embedded engine are one process.
  if (processors.length === 1) return standbys
  return Math.min(standbys, (processors.length === 0 ? members : up.size) - 1)
}

/** Program processes by name, and which of them fell. */
export class Cast {
  readonly #programs = new Map<string, Program>()
  readonly #dismissed = new Set<Program>()
  readonly falls: Fall[] = []

  get names(): readonly string[] {
    return [...this.#programs.keys()]
  }

  has(name: string): boolean {
    return this.#programs.has(name)
  }

  enter(name: string, program: Program): void {
    this.#programs.set(name, program)
    void this.#watch(name, program)
  }

  async #watch(name: string, program: Program): Promise<void> {
    const exit = await program.exited
    if (this.#programs.get(name) === program) this.#programs.delete(name)
    if (this.#dismissed.delete(program)) return
    this.falls.push({ target: name, exit, said: program.stderr.trim().split('\n').slice(-3).join(' ') })
  }

  /** SIGTERM; rejects when the process did not end well. */
  async stop(name: string): Promise<void> {
    const exit = await this.#dismiss(name).stop()
    if (exit.code !== 0) throw new Error(`${name} did not stop in order: it ended with ${JSON.stringify(exit)}`)
  }

  async kill(name: string): Promise<void> {
    await this.#dismiss(name).kill()
  }

  freeze(name: string): void {
    this.#program(name).child.kill('SIGSTOP')
  }

  thaw(name: string): void {
    this.#program(name).child.kill('SIGCONT')
  }

  async killAll(): Promise<void> {
    await Promise.all(this.names.map((name) => this.kill(name)))
  }

  #dismiss(name: string): Program {
    const program = this.#program(name)
    this.#dismissed.add(program)
    return program
  }

  #program(name: string): Program {
    const program = this.#programs.get(name)
    if (program === undefined) throw new Error(`${name} does not run`)
    return program
  }
}

const ANSWER_MS = 5_000

/** A cluster that somebody else runs: nothing of it is started or ended. */
export class AttachedStage implements Stage {
  readonly mqtt: Stage['mqtt']
  readonly api: ApiAddress
  readonly partitions: number
  readonly standbys: number
  readonly processors: readonly string[] = []
  readonly falls: Stage['falls'] = []
  readonly up: ReadonlySet<string> = new Set()
  readonly left: readonly string[] = []

  private constructor({ mqtt, api, partitions, standbys }: Pick<Stage, 'mqtt' | 'api' | 'partitions' | 'standbys'>) {
    this.mqtt = mqtt
    this.api = api
    this.partitions = partitions
    this.standbys = standbys
  }

  /** Rejects with ConfigurationError when the API does not answer. */
  static async open(of: Pick<Stage, 'mqtt' | 'api' | 'partitions' | 'standbys'>): Promise<AttachedStage> {
    const ask = (path: string): Promise<Response> =>
      fetch(of.api.url + path, { headers: of.api.headers, signal: AbortSignal.timeout(ANSWER_MS) })
    let partitions: Response
    try {
      const response = await ask('/readyz')
      if (!response.ok) throw new Error(`/readyz says ${response.status}: ${(await response.text()).slice(0, 200)}`)
      partitions = await ask('/v1/partitions')
      await partitions.arrayBuffer()
    } catch (error) {
      const { message, cause } = error as Error
      const why = cause instanceof Error ? cause.message : message
      const way = 'start it, or name another by --api'
      throw new ConfigurationError(
        'INVALID_CONFIGURATION',
        `the API at ${of.api.url} is not ready (${why}): ${way}`,
        error,
      )
    }
    if (partitions.status === 401 || partitions.status === 403) {
      const way = 'set AUTH_TOKEN to one with the scopes devices:read and ops:read'
      const told = `${partitions.status}: ${partitions.headers.get('www-authenticate') ?? ''}`
      throw new ConfigurationError(
        'INVALID_CONFIGURATION',
        `the API at ${of.api.url} asks for a token (${told}): ${way}`,
      )
    }
    return new AttachedStage(of)
  }

  start = untouched
  stop = untouched
  kill = untouched
  freeze = untouched
  thaw = untouched
  cut = untouched
  heal = untouched
  wipe = untouched

  async [Symbol.asyncDispose](): Promise<void> {}
}

function untouched(): Promise<void> {
  return Promise.reject(new Error('an attached drill starts and ends nothing'))
}
