import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'

const REPOSITORY = new URL('../..', import.meta.url).pathname
const MAIN = join(REPOSITORY, 'main.ts')

/** How long a process may take to answer /readyz with 200, and to end after SIGTERM. */
const READY_MS = 20_000
const STOP_MS = 15_000
/** What is kept of a process's output, for the message of a failure. */
const MAX_OUTPUT_CHARACTERS = 64 * 1024
const POLL_MS = 10

/** A folder that is gone when this process is, if `removeFolder` did not take it before. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tidemark-'))
  temporary.add(folder)
  return folder
}

export async function removeFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true })
  temporary.delete(folder)
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

type Child = ChildProcessByStdio<null, Readable, Readable>

const running = new Set<Child>()
const temporary = new Set<string>()
// A test that fails, or Ctrl-C, must not leave a broker or its data behind.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  for (const folder of temporary) rmSync(folder, { recursive: true, force: true })
})

/** A process of this repository, with what it printed. */
export class Program {
  readonly child: Child
  readonly exited: Promise<Exit>
  #exit: Exit | undefined
  #stdout = ''
  #stderr = ''

  constructor(file: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const child = spawn(process.execPath, [file, ...args], {
      cwd: REPOSITORY,
      env: { PATH: process.env.PATH ?? '', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    running.add(child)
    this.child = child
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout = (this.#stdout + text).slice(-MAX_OUTPUT_CHARACTERS)
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MAX_OUTPUT_CHARACTERS)
    })
    // 'close' comes when the output is read too.
    this.exited = once(child, 'close').then(([code, signal]) => {
      running.delete(child)
      this.#exit = { code: code as number | null, signal: signal as NodeJS.Signals | null }
      return this.#exit
    })
  }

  static main(args: readonly string[], env: Readonly<Record<string, string>> = {}): Program {
    return new Program(MAIN, args, env)
  }

  get exit(): Exit | undefined {
    return this.#exit
  }

  get stdout(): string {
    return this.#stdout
  }

  get stderr(): string {
    return this.#stderr
  }

  async kill(): Promise<Exit> {
    this.child.kill('SIGKILL')
    return this.exited
  }

  /** SIGTERM, and SIGKILL when that does not end it. */
  async stop(): Promise<Exit> {
    this.child.kill('SIGTERM')
    const timer = setTimeout(() => this.child.kill('SIGKILL'), STOP_MS)
    const exit = await this.exited
    clearTimeout(timer)
    return exit
  }
}

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
      // As `npm start` sets it.
      MALLOC_ARENA_MAX: '2',
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

/** Ports nobody listened on a moment ago. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, '127.0.0.1')
      await once(server, 'listening')
      return server
    }),
  )
  const ports = servers.map((server) => (server.address() as { port: number }).port)
  await Promise.all(servers.map((server) => once(server.close(), 'close')))
  return ports
}
