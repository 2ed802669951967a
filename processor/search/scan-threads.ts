import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Logger } from 'pino'
import { RetryableError, reasonOf } from '../contract/errors.ts'
import type { SearchQuestion, SummaryQuestion } from '../contract/search.ts'
import { Summary } from '../contract/summary.ts'
import { within } from '../runtime/pause.ts'
import { inMemory, MEMORY_SHARE } from '../runtime/resources.ts'
import type { FoundSlice, Held, Scans, SummedSlice } from './searcher.ts'
import { encodeSearchQuestion, encodeSummaryQuestion } from './wire.ts'

/** Scans under way, and results that nobody has fetched yet. */
const MAX_KEPT = 1_024
/** Milliseconds until an unfetched result is dropped. A caller that waits for a connection finds it until then. */
export const KEPT_MS = 5_000

/**
 * Keeps scans that take longer than their caller can wait. The caller asks again, and finds the scan under way or done.
 */
export class PendingScans<T extends object> {
  readonly #begun = new Map<string, Promise<T>>()

  /**
   * Resolves with the result of `begin`, or of the scan that is pending under this key; undefined when it takes longer
   * than `ms`.
   */
  async within(key: string, begin: () => Promise<T>, ms: number): Promise<T | undefined> {
    const result = await within(this.#begun.get(key) ?? this.#begin(key, begin), ms, () => undefined)
    if (result !== undefined) this.#begun.delete(key)
    return result
  }

  #begin(key: string, begin: () => Promise<T>): Promise<T> {
    if (this.#begun.size >= MAX_KEPT) throw new RetryableError('STORE_UNAVAILABLE', `${MAX_KEPT} scans are under way`)
    const work = begin()
    const drop = () => {
      if (this.#begun.get(key) === work) this.#begun.delete(key)
    }
    this.#begun.set(key, work)
    work.then(() => setTimeout(drop, KEPT_MS).unref(), drop)
    return work
  }
}

/** Each thread takes the memory of a JavaScript engine and of what it reads. */
const MAX_THREADS = 4
/** As many as cores, since at their priority threads get only idle time. Fewer where memory is scarce. */
const DEFAULT_THREADS = Math.max(1, Math.floor(Math.min(MAX_THREADS, availableParallelism()) * MEMORY_SHARE))
/**
 * After this long, ms, the answer says that nothing is found yet. A thread on a busy machine, or one that opens the
 * stores, may take longer than callers wait before they take this process for dead.
 */
export const PATIENCE_MS = 400
/** Milliseconds until an unused thread is ended. */
const IDLE_MS = 60_000
/** Milliseconds between two log lines about failing scans: callers ask again and again. */
const TELL_MS = 60_000
/** Bounds of a thread's JavaScript heap. */
const HEAP = { maxOldGenerationSizeMb: inMemory(256), maxYoungGenerationSizeMb: inMemory(64) }

export type ScanJob = Held &
  (
    | { readonly search: SearchQuestion; readonly summary?: undefined }
    | { readonly search?: undefined; readonly summary: SummaryQuestion }
  )

export interface ScanAnswer {
  readonly search?: FoundSlice
  readonly summary?: SummedSlice
  readonly error?: string
}

export interface ScanThreadsOptions {
  /** Folder of the stores, which are open in this process. */
  readonly folder: string
  readonly logger: Logger
  readonly threads?: number
  readonly patienceMs?: number
}

/** Scans stores in threads of low priority. Each opens the database for reading beside the one that writes. */
export class ScanThreads implements Scans, AsyncDisposable {
  readonly #folder: string
  readonly #logger: Logger
  readonly #patienceMs: number
  readonly #threads: (ScanThread | undefined)[]
  readonly #unfinished = new PendingScans<ScanAnswer>()
  #toldAt = Number.NEGATIVE_INFINITY
  #ended = false

  constructor({ folder, logger, threads = DEFAULT_THREADS, patienceMs = PATIENCE_MS }: ScanThreadsOptions) {
    this.#patienceMs = patienceMs
    this.#folder = folder
    this.#logger = logger
    this.#threads = Array.from({ length: threads })
  }

  /** Rejects with RetryableError when the outcome is unknown: ask again. */
  async search(search: SearchQuestion, held: Held): Promise<FoundSlice> {
    const answer = await this.#within(encodeSearchQuestion(search), { ...held, search })
    return answer?.search ?? { items: [], settled: false, more: false, next: search.from }
  }

  /** Rejects as `search` does. */
  async summarize(summary: SummaryQuestion, held: Held): Promise<SummedSlice> {
    const answer = await this.#within(encodeSummaryQuestion(summary), { ...held, summary })
    return answer?.summary ?? { summary: new Summary(summary.metrics.length).toJSON(), next: summary.from }
  }

  #within(question: string, job: ScanJob): Promise<ScanAnswer | undefined> {
    const { partition } = job.search ?? job.summary
    const key = `${job.generation} ${job.reached} ${question}`
    return this.#unfinished.within(key, () => this.#run(partition, job), this.#patienceMs)
  }

  async #run(partition: number, job: ScanJob): Promise<ScanAnswer> {
    try {
      return await this.#thread(partition).run(job)
    } catch (error) {
      this.#tell(partition, error)
      throw error
    }
  }

  /** The caller only learns that nobody can answer. */
  #tell(partition: number, error: unknown): void {
    const now = performance.now()
    if (this.#ended || now - this.#toldAt < TELL_MS) return
    this.#toldAt = now
    this.#logger.warn({ partition, err: error }, 'a partition cannot be scanned: its lists, counts and summaries fail')
  }

  #thread(partition: number): ScanThread {
    const place = partition % this.#threads.length
    let thread = this.#threads[place]
    if (thread === undefined) {
      const onEnd = () => {
        if (this.#threads[place] === thread) this.#threads[place] = undefined
      }
      this.#threads[place] = thread = started(this.#folder, onEnd)
    }
    return thread
  }

  /** Rejects everything under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended = true
    await Promise.all(this.#threads.filter((thread) => thread !== undefined).map((thread) => thread.end()))
  }
}

interface Waiting {
  readonly resolve: (answer: ScanAnswer) => void
  readonly reject: (error: RetryableError) => void
}

function started(folder: string, onEnd: () => void): ScanThread {
  try {
    return new ScanThread(folder, onEnd)
  } catch (error) {
    throw new RetryableError('STORE_UNAVAILABLE', `no thread can be started to scan: ${reasonOf(error)}`, error)
  }
}

/** Its queue is bounded by the pending scans. */
class ScanThread {
  readonly #worker: Worker
  readonly #waiting = new Map<number, Waiting>()
  #id = 0
  readonly #idle: NodeJS.Timeout
  readonly #onEnd: () => void

  /** `onEnd` is called when the thread takes no more work. */
  constructor(folder: string, onEnd: () => void) {
    this.#onEnd = onEnd
    this.#worker = new Worker(new URL('./scan-thread.ts', import.meta.url), {
      workerData: folder,
      resourceLimits: HEAP,
    })
    this.#worker.unref()
    this.#worker.on('message', ([id, answer]: [number, ScanAnswer]) => {
      const { resolve, reject } = this.#waiting.get(id) as Waiting
      this.#waiting.delete(id)
      if (answer.error === undefined) resolve(answer)
      else reject(new RetryableError('STORE_UNAVAILABLE', `the store cannot be scanned now: ${answer.error}`))
    })
    let failure: Error | undefined
    this.#worker.on('error', (error: Error) => {
      failure = error
    })
    this.#worker.on('exit', () => {
      onEnd()
      clearTimeout(this.#idle)
      const how = failure === undefined ? 'ended' : `failed: ${failure.message}`
      for (const { reject } of this.#waiting.values()) {
        reject(new RetryableError('STORE_UNAVAILABLE', `the thread that scanned the store has ${how}`, failure))
      }
    })
    this.#idle = setTimeout(() => {
      if (this.#waiting.size > 0) this.#idle.refresh()
      else void this.end()
    }, IDLE_MS).unref()
  }

  run(job: ScanJob): Promise<ScanAnswer> {
    this.#idle.refresh()
    return new Promise((resolve, reject) => {
      const id = this.#id++
      this.#waiting.set(id, { resolve, reject })
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has none
      this.#worker.postMessage([id, job])
    })
  }

  async end(): Promise<void> {
    this.#onEnd()
    await this.#worker.terminate()
  }
}
