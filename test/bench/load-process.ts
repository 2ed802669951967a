import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { LoadReport } from '../../simulators/load/load.ts'
import { Program, removeFolder, temporaryFolder } from '../../simulators/program.ts'

const FILE = 'acknowledged'
const LOAD_MAIN = fileURLToPath(new URL('./load-main.ts', import.meta.url))

export interface LoadFlags {
  readonly port: number
  readonly prefix?: string
  readonly connections?: number
  readonly devices?: number
  readonly window?: number
  readonly rate?: number
  readonly messages?: number
  readonly seconds?: number
}

export interface LoadOutcome {
  readonly report: LoadReport
  /** Per device the last `seq` acknowledged; 0: none. */
  readonly lastAcknowledged: Uint32Array
}

/** The load generator as a process of its own, on the other core. Its connections stay open until it is disposed of. */
export class LoadProcess implements AsyncDisposable {
  readonly #program: Program
  readonly #folder: string

  private constructor(program: Program, folder: string) {
    this.#program = program
    this.#folder = folder
  }

  static async start(flags: LoadFlags): Promise<LoadProcess> {
    const folder = await temporaryFolder()
    const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)])
    return new LoadProcess(new Program(LOAD_MAIN, [...args, '--hold', '--acknowledged', join(folder, FILE)]), folder)
  }

  /** Ends the load early; `outcome` follows. */
  stop(): void {
    this.#program.child.kill('SIGTERM')
  }

  /** Resolves when all is acknowledged. Rejects, with what it said, when it failed. */
  async outcome(): Promise<LoadOutcome> {
    const program = this.#program
    const reported = new Promise<void>((resolve) => {
      const look = (): void => {
        if (program.stdout.includes('\n')) resolve()
      }
      look()
      program.child.stdout.on('data', look)
    })
    await Promise.race([reported, program.exited])
    if (!program.stdout.includes('\n')) throw new Error(`the load generator failed: ${program.stderr}`)
    const bytes = new Uint8Array(await readFile(join(this.#folder, FILE)))
    return { report: JSON.parse(program.stdout) as LoadReport, lastAcknowledged: new Uint32Array(bytes.buffer) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program.stop()
    await removeFolder(this.#folder)
  }
}

/** A whole load, after which its connections are closed. */
export async function load(flags: LoadFlags): Promise<LoadOutcome> {
  await using process = await LoadProcess.start(flags)
  return await process.outcome()
}
