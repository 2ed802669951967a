import { pause } from '../../../processor/runtime/pause.ts'
import type { Cluster } from '../../../simulators/cluster.ts'
import type { Program } from '../../../simulators/program.ts'
import type { Random } from '../../../simulators/random.ts'
import type { Api } from './asker.ts'

export type Fault = 'kill' | 'stop' | 'freeze'
const FAULTS: readonly Fault[] = ['kill', 'stop', 'freeze']
const POLL_MS = 20

export interface Doings {
  /** Resolves when clients have come further: through this API process, or through any. */
  readonly progress: (api: Api | undefined, signal: AbortSignal) => Promise<void>
  /** Resolves when every device has had more acknowledged. */
  readonly heard: (signal: AbortSignal) => Promise<void>
}

/** Disturbs the processes of a cluster: kill -9, SIGTERM, and SIGSTOP until something has happened without them. */
export class Nemesis {
  readonly done = new Map<string, number>()
  readonly processors = new Map<string, Program>()
  readonly #cluster: Cluster
  readonly #apis: readonly Api[]
  readonly #programs = new Map<Api, Program>()
  readonly #doings: Doings
  readonly #partitions: number
  #ingest: Program | undefined

  constructor(cluster: Cluster, apis: readonly Api[], partitions: number, doings: Doings) {
    this.#cluster = cluster
    this.#apis = apis
    this.#partitions = partitions
    this.#doings = doings
  }

  /** Starts all that it will disturb. */
  async start(instances: readonly string[]): Promise<void> {
    const ingest = this.#cluster.ingest()
    await Promise.all([
      ...instances.map(async (instance) => this.processors.set(instance, await this.#cluster.processor(instance))),
      ...this.#apis.map(async (api) => this.#programs.set(api, await this.#cluster.api(api.port))),
    ])
    this.#ingest = await ingest
  }

  /** Rejects when one of them has ended by itself. */
  assertAlive(): void {
    for (const [instance, program] of this.processors) alive(program, `processor ${instance}`)
    for (const api of this.#apis) alive(this.#programs.get(api), `api ${api.port}`)
    alive(this.#ingest, 'ingest')
  }

  /** Each fault for each processor, in an order of its own, and again until `signal` aborts; then all run. */
  async disturbProcessors(random: Random, signal: AbortSignal): Promise<void> {
    const faults = [...this.processors.keys()].flatMap((instance) => FAULTS.map((fault) => ({ instance, fault })))
    while (!signal.aborted) {
      for (const { instance, fault } of shuffled(faults, random)) {
        if (signal.aborted) return
        await this.#processor(instance, fault, random() < 0.5, signal)
        await this.#doings.progress(undefined, signal)
      }
    }
  }

  /** The same for each API process and for ingest. */
  async disturbEdges(random: Random, signal: AbortSignal): Promise<void> {
    const faults = [...this.#apis, undefined].flatMap((api) => FAULTS.map((fault) => ({ api, fault })))
    while (!signal.aborted) {
      for (const { api, fault } of shuffled(faults, random)) {
        if (signal.aborted) return
        await (api === undefined ? this.#disturbIngest(fault, signal) : this.#api(api, fault, signal))
        await this.#doings.progress(api, signal)
      }
    }
  }

  /** `patient`: others have taken its partitions over before it comes back. */
  async #processor(instance: string, fault: Fault, patient: boolean, signal: AbortSignal): Promise<void> {
    const program = alive(this.processors.get(instance), `processor ${instance}`)
    const meanwhile = () => (patient ? this.#replaced(instance, signal) : this.#doings.progress(undefined, signal))
    if (fault === 'freeze') await frozen(program, meanwhile)
    else {
      await program[fault]()
      if (patient) await this.#replaced(instance, signal)
      this.processors.set(instance, await this.#cluster.processor(instance))
    }
    this.#note('processor', fault)
  }

  async #api(api: Api, fault: Fault, signal: AbortSignal): Promise<void> {
    const program = alive(this.#programs.get(api), `api ${api.port}`)
    const other = this.#apis.find((candidate) => candidate !== api)
    if (fault === 'freeze') await frozen(program, () => this.#doings.progress(other, signal))
    else {
      await program[fault]()
      api.life++
      this.#programs.set(api, await this.#cluster.api(api.port))
    }
    this.#note('api', fault)
  }

  async #disturbIngest(fault: Fault, signal: AbortSignal): Promise<void> {
    const program = alive(this.#ingest, 'ingest')
    if (fault === 'freeze') await frozen(program, () => this.#doings.progress(undefined, signal))
    else {
      await program[fault]()
      this.#ingest = await this.#cluster.ingest()
    }
    await this.#doings.heard(signal)
    this.#note('ingest', fault)
  }

  /** Resolves when others own all partitions. */
  async #replaced(instance: string, signal: AbortSignal): Promise<void> {
    for (let others = 0; others < this.#partitions && !signal.aborted; await pause(POLL_MS, signal)) {
      // The API that tells may be away itself.
      const owned = await this.#cluster.owned().catch(() => ({}))
      others = Object.entries(owned).reduce((sum, [owner, count]) => (owner === instance ? sum : sum + count), 0)
    }
  }

  #note(target: string, fault: Fault): void {
    const name = `${target} ${fault}`
    this.done.set(name, (this.done.get(name) ?? 0) + 1)
  }
}

/** Resolves when `program`, frozen until `meanwhile` is over, goes on. */
async function frozen({ child }: Program, meanwhile: () => Promise<void>): Promise<void> {
  child.kill('SIGSTOP')
  try {
    await meanwhile()
  } finally {
    child.kill('SIGCONT')
  }
}

/** Nobody may end by himself. */
function alive(program: Program | undefined, name: string): Program {
  if (program === undefined) throw new Error(`${name} was not started`)
  if (program.exit !== undefined) throw new Error(`${name} ended by itself: ${program.stderr.slice(-2_000)}`)
  return program
}

function shuffled<T>(of: readonly T[], random: Random): T[] {
  return of
    .map((value) => ({ value, key: random() }))
    .sort((a, b) => a.key - b.key)
    .map(({ value }) => value)
}
