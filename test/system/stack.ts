import { type Exit, freePorts, Program, removeFolder, temporaryFolder } from '../../simulators/program.ts'

/** How long a process may take to answer /readyz with 200. */
const READY_MS = 20_000
/** Of a wait for what it does once it has started. */
export const STARTED = { timeout: READY_MS }
/** For a test that starts or stops processes so many times, ms: as long as they may take for it, and the rest of the test. */
export const timeFor = (times: number): { readonly timeout: number } => ({ timeout: 30_000 + times * READY_MS })
const POLL_MS = 10

export interface StackOptions {
  /** A folder to keep; without it a temporary one that goes with the stack. */
  readonly dataDir?: string
  readonly env?: Readonly<Record<string, string>>
}

/** `node main.ts up` as a process of its own, on free ports. */
export class Stack implements AsyncDisposable {
  readonly mqttPort: number
  readonly httpPort: number
  readonly dataDir: string
  readonly #env: Readonly<Record<string, string>>
  readonly #ownsDataDir: boolean
  #program: Program | undefined

  private constructor(mqttPort: number, httpPort: number, dataDir: string, options: StackOptions) {
    this.mqttPort = mqttPort
    this.httpPort = httpPort
    this.dataDir = dataDir
    this.#ownsDataDir = options.dataDir === undefined
    this.#env = {
      HOST: '127.0.0.1',
      MQTT_PORT: String(mqttPort),
      HTTP_PORT: String(httpPort),
      DATA_DIR: dataDir,
      LOG_LEVEL: 'warn',
      ...options.env,
    }
  }

  /** Resolves when it is ready. */
  static async start(options: StackOptions = {}): Promise<Stack> {
    const [mqttPort, httpPort] = await freePorts(2)
    const dataDir = options.dataDir ?? (await temporaryFolder())
    const stack = new Stack(mqttPort as number, httpPort as number, dataDir, options)
    try {
      await stack.restart()
    } catch (error) {
      await stack[Symbol.asyncDispose]()
      throw error
    }
    return stack
  }

  get program(): Program {
    if (this.#program === undefined) throw new Error('the stack was not started')
    return this.#program
  }

  /** Environment of the process, to start another with. */
  get env(): Readonly<Record<string, string>> {
    return this.#env
  }

  /** Starts the process on the same folder and ports; resolves with the ms until /readyz answered 200. */
  async restart(): Promise<number> {
    const start = performance.now()
    this.#program = Program.main(['up'], this.#env)
    await this.untilReady()
    return performance.now() - start
  }

  async untilReady(): Promise<void> {
    const { program } = this
    const deadline = performance.now() + READY_MS
    while ((await this.readyz()) !== 200) {
      if (program.exit !== undefined)
        throw new Error(`main.ts ended with ${JSON.stringify(program.exit)}: ${output(program)}`)
      if (performance.now() > deadline)
        throw new Error(`main.ts was not ready after ${READY_MS} ms: ${output(program)}`)
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }

  get(path: string, init?: RequestInit): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.httpPort}${path}`, init)
  }

  /** The JSON of an answer that must be 200. */
  async json<T>(path: string, init?: RequestInit): Promise<T> {
    const response = await this.get(path, init)
    if (response.status !== 200) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`)
    return (await response.json()) as T
  }

  /** Status code of /readyz; undefined while nothing listens. */
  async readyz(): Promise<number | undefined> {
    try {
      const response = await this.get('/readyz')
      await response.arrayBuffer()
      return response.status
    } catch (error) {
      if (error instanceof TypeError) return undefined
      throw error
    }
  }

  kill(): Promise<Exit> {
    return this.program.kill()
  }

  stop(): Promise<Exit> {
    return this.program.stop()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program?.kill()
    if (this.#ownsDataDir) await removeFolder(this.dataDir)
  }
}

function output(program: Program): string {
  return `${program.stderr}${program.stdout}`.slice(-4_000)
}
