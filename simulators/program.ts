import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type ListenOptions } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { pause } from '../processor/runtime/pause.ts'

const REPOSITORY = fileURLToPath(new URL('..', import.meta.url))
export const MAIN = join(REPOSITORY, 'main.ts')
/** The scripts of package.json use it, too: a cached start takes half the time. */
const COMPILE_CACHE = join(REPOSITORY, 'node_modules/.cache/node')

/** Longest wait after SIGTERM: main.ts takes up to 15 s, after the 3 s of notice that an api gives. */
const STOP_MS = 25_000
const POLL_MS = 10
/** How much output of a process is kept, for the message of a failure. */
const MAX_OUTPUT_CHARACTERS = 64 * 1024

/** A folder whose path begins with `path`. It is removed when this process ends, if not by `removeFolder` before. */
export async function temporaryFolder(path = join(tmpdir(), 'tidemark-')): Promise<string> {
  const folder = await mkdtemp(path)
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

const running = new Set<ChildProcess>()
const temporary = new Set<string>()
// A test or a drill that fails or is stopped must leave neither processes nor their data behind.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  // A killed process may write until it is gone, so a removal may need retries.
  for (const folder of temporary) rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
})

/** Kills the child when this process ends before it. */
export function endsWithUs(child: ChildProcess): void {
  running.add(child)
  child.once('exit', () => running.delete(child))
}

/** A process of this repository, and its output. */
export class Program {
  readonly child: Child
  readonly exited: Promise<Exit>
  #exit: Exit | undefined
  #stdout = ''
  #stderr = ''

  constructor(file: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const child = spawn(process.execPath, [file, ...args], {
      cwd: REPOSITORY,
      env: { PATH: process.env.PATH ?? '', NODE_COMPILE_CACHE: COMPILE_CACHE, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    endsWithUs(child)
    this.child = child
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout = (this.#stdout + text).slice(-MAX_OUTPUT_CHARACTERS)
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MAX_OUTPUT_CHARACTERS)
    })
    // Unlike 'exit', 'close' comes after the last output.
    this.exited = once(child, 'close').then(([code, signal]) => {
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

  /** Resolves when /readyz at `url` says so. Rejects when the process ends before that, or takes too long. */
  async ready(name: string, url: string, withinMs: number): Promise<void> {
    const deadline = performance.now() + withinMs
    while (!(await isReady(url))) {
      const said = this.stderr.slice(-2_000)
      if (this.exit !== undefined) throw new Error(`${name} ended: ${said}`)
      if (performance.now() > deadline) throw new Error(`${name} is not ready after ${withinMs / 1000} s: ${said}`)
      await pause(POLL_MS)
    }
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

/** The answer of /readyz at `url`; false when nobody answers. */
export async function isReady(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/readyz`)
    await response.arrayBuffer()
    return response.ok
  } catch (error) {
    if (error instanceof TypeError) return false
    throw error
  }
}

/** Linux gives ports from 32,768 on to connections and to port 0 (`ip_local_port_range`). */
const FIRST_PORT = 20_000
const PAST_PORT = 32_000
/** Tries to find one port. */
const MAX_TRIES = 200

/**
 * Ports of 127.0.0.1 that this process reserves until it ends, for processes that start later or start again. Throws when no
 * port is free.
 */
export function freePorts(count: number): Promise<number[]> {
  return Promise.all(Array.from({ length: count }, freePort))
}

async function freePort(): Promise<number> {
  for (let i = 0; i < MAX_TRIES; i++) {
    const port = randomInt(FIRST_PORT, PAST_PORT)
    if (!(await claimed(port))) continue
    const probe = await listening({ port, host: '127.0.0.1' })
    if (probe === undefined) continue
    await once(probe.close(), 'close')
    return port
  }
  throw new Error(`none of ${MAX_TRIES} ports from ${FIRST_PORT} to ${PAST_PORT - 1} of 127.0.0.1 is free`)
}

/** The claim is an abstract socket (unix(7)): one process can have it, and it ends with that process. */
async function claimed(port: number): Promise<boolean> {
  const claim = await listening({ path: `\0tidemark-port-${port}` })
  claim?.unref()
  return claim !== undefined
}

/** undefined when another has the address. */
async function listening(address: ListenOptions) {
  const server = createServer().listen(address)
  try {
    await once(server, 'listening')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return undefined
    throw error
  }
  return server
}
