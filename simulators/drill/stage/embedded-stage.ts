import { join } from 'node:path'
import { freePorts, MAIN, Program, removeFolder, temporaryFolder } from '../../program.ts'
import { type ApiAddress, Cast, type Stage } from './stage.ts'

const READY_MS = 30_000
const NAME = 'tidemark'

export interface EmbeddedStageOptions {
  readonly processors: number
  readonly partitions: number
  readonly entry: string | undefined
}

/** All roles in one process, on the embedded log. */
export class EmbeddedStage implements Stage {
  readonly dataDir: string
  readonly mqtt: Stage['mqtt']
  readonly api: ApiAddress
  readonly partitions: number
  readonly standbys: number
  readonly processors = [NAME]
  readonly up = new Set<string>()
  readonly #cast = new Cast()
  readonly #options: EmbeddedStageOptions
  readonly #env: Readonly<Record<string, string>>

  private constructor(options: EmbeddedStageOptions, dataDir: string, [mqttPort, httpPort]: readonly number[]) {
    this.#options = options
    this.dataDir = dataDir
    this.partitions = options.partitions
    this.standbys = Math.min(1, options.processors - 1)
    this.mqtt = { host: '127.0.0.1', port: mqttPort as number }
    this.api = { url: `http://127.0.0.1:${httpPort}`, headers: {} }
    this.#env = {
      HOST: '127.0.0.1',
      MQTT_PORT: String(mqttPort),
      HTTP_PORT: String(httpPort),
      DATA_DIR: dataDir,
      PARTITIONS: String(options.partitions),
      LOG_LEVEL: 'warn',
    }
  }

  /** Resolves when it is ready. */
  static async open(options: EmbeddedStageOptions): Promise<EmbeddedStage> {
    const stage = new EmbeddedStage(options, await temporaryFolder(), await freePorts(2))
    try {
      await stage.start()
    } catch (error) {
      await stage[Symbol.asyncDispose]()
      throw error
    }
    return stage
  }

  get falls(): Stage['falls'] {
    return this.#cast.falls
  }

  get left(): readonly string[] {
    return this.#cast.names
  }

  /** Folders of the stores: one a processor of the process. */
  get storeFolders(): readonly string[] {
    return Array.from({ length: this.#options.processors }, (_, i) =>
      join(this.dataDir, i === 0 ? 'tidemark-1' : `tidemark-1-${i + 1}`),
    )
  }

  async start(): Promise<void> {
    const { entry = MAIN, processors } = this.#options
    const program = new Program(entry, ['up', '--processors', String(processors)], this.#env)
    this.#cast.enter(NAME, program)
    this.up.add(NAME)
    try {
      await program.ready(NAME, this.api.url, READY_MS)
    } catch (error) {
      this.up.delete(NAME)
      if (this.#cast.has(NAME)) await this.#cast.kill(NAME)
      throw error
    }
  }

  async stop(): Promise<void> {
    this.up.delete(NAME)
    await this.#cast.stop(NAME)
  }

  async kill(): Promise<void> {
    this.up.delete(NAME)
    await this.#cast.kill(NAME)
  }

  async freeze(): Promise<void> {
    this.up.delete(NAME)
    this.#cast.freeze(NAME)
  }

  async thaw(): Promise<void> {
    this.#cast.thaw(NAME)
    this.up.add(NAME)
  }

  async cut(): Promise<void> {
    throw new Error('there is no network in one process')
  }

  async heal(): Promise<void> {
    throw new Error('there is no network in one process')
  }

  async wipe(): Promise<void> {
    if (this.#cast.has(NAME)) throw new Error('tidemark runs: its store folders cannot be taken from it')
    await Promise.all(this.storeFolders.map((folder) => removeFolder(folder)))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#cast.killAll()
    await removeFolder(this.dataDir)
  }
}
