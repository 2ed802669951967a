import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { cachedFolder, run } from '../../../simulators/kafka/kafka.ts'
import { endsWithUs, removeFolder, temporaryFolder } from '../../../simulators/program.ts'

const PEERS = join(import.meta.dirname, '../peers')
const SOURCES = ['pom.xml', 'src/LastStatus.java', 'src/Status.java']
const EVENT_WITHIN_MS = 300_000
/** What is kept of its standard error, for the message of a failure. */
const MAX_ERROR_CHARACTERS = 8 * 1024

export interface StreamsOptions {
  readonly brokers: string
  readonly application: string
  readonly topic: string
  readonly threads: number
  readonly standbys?: number
  /** Default 45,000, as Kafka's own. */
  readonly sessionTimeoutMs?: number
}

/** What the peer prints; `at` and `began` in epoch ms. */
interface StreamsEvent {
  readonly event: 'state' | 'first' | 'restored' | 'committed'
  readonly at: number
  readonly state?: string
  readonly records?: number
  readonly open?: number
  readonly began?: number
}

/** The peer, built by Maven when its sources are new: Kafka Streams in a JVM of its own. */
export class Streams implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<null, Readable, Readable>
  readonly #events: StreamsEvent[] = []
  /** Folder of its stores. */
  readonly #state: string
  readonly #exited: Promise<unknown>
  #wake: () => void = () => {}
  #over = false
  #stderr = ''

  private constructor(args: readonly string[], state: string) {
    this.#state = state
    const child = spawn('java', args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#child = child
    endsWithUs(child)
    this.#exited = once(child, 'exit')
    child.on('exit', () => {
      this.#over = true
      this.#wake()
    })
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#events.push(JSON.parse(line) as StreamsEvent)
      this.#wake()
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MAX_ERROR_CHARACTERS)
    })
  }

  static async start(options: StreamsOptions): Promise<Streams> {
    const { brokers, application, topic, threads, standbys = 0, sessionTimeoutMs = 45_000 } = options
    const state = await temporaryFolder()
    const folder = await build()
    const classpath = `${join(folder, 'peer.jar')}:${join(folder, 'jars', '*')}`
    const numbers = [threads, standbys, sessionTimeoutMs].map(String)
    const program = ['-Xmx1g', '-cp', classpath, 'LastStatus', brokers, application, topic]
    return new Streams([...program, state, ...numbers], state)
  }

  /** The first event, printed or yet to be, that `isIt`. Rejects when the peer ends before. */
  async event(isIt: (event: StreamsEvent) => boolean): Promise<StreamsEvent> {
    const deadline = performance.now() + EVENT_WITHIN_MS
    for (;;) {
      const found = this.#events.find(isIt)
      if (found !== undefined) return found
      if (this.#over) throw new Error(`Kafka Streams ended: ${this.#stderr}`)
      if (performance.now() > deadline) throw new Error(`Kafka Streams is not there after ${EVENT_WITHIN_MS} ms`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  /** The newest of its kind. Throws when there is none. */
  last(event: StreamsEvent['event']): StreamsEvent {
    const found = this.#events.findLast((one) => one.event === event)
    if (found === undefined) throw new Error(`Kafka Streams has not said ${JSON.stringify(event)}`)
    return found
  }

  get pid(): number {
    return this.#child.pid as number
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
    await removeFolder(this.#state)
  }
}

async function build(): Promise<string> {
  const hash = createHash('sha256')
  for (const source of SOURCES) hash.update(await readFile(join(PEERS, source)))
  return cachedFolder(`peers-${hash.digest('hex').slice(0, 16)}`, async (unfinished) => {
    await run('mvn', [
      '--batch-mode',
      '--quiet',
      '--file',
      join(PEERS, 'pom.xml'),
      'package',
      'dependency:copy-dependencies',
      `-Dpeer.output=${unfinished}`,
      `-DoutputDirectory=${join(unfinished, 'jars')}`,
    ])
  })
}
