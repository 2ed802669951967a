import type { Logger } from 'pino'
import { ConfigurationError, databaseFailure, wayOut } from '../contract/errors.ts'
import type { ProcessorMetrics } from '../metrics.ts'

/**
 * So long, ms, a database may refuse writes, for another reason than space, until it is opened anew; and once more so long
 * until nothing is left but that others take the partitions.
 */
const SPOILT_MS = 10_000
/** The log tells again of a fault that stays, ms. */
const REMIND_MS = 60_000

export interface StoreFaultsOptions {
  readonly instance: string
  readonly metrics: ProcessorMetrics
  readonly logger: Logger
  /** Epoch ms. */
  readonly now: () => number
  /** Opens the database anew, under its users. Rejects with what is to end the process. */
  readonly reopen: () => Promise<void>
}

interface Fault {
  readonly since: number
  reason: string
  /** What was waited since the log told of it, ms. */
  untoldMs: number
  /** What was waited while no lack of space was the reason, ms, since it began or the database was opened anew. */
  spoiltMs: number
  /** What was waited while lack of space was the reason, ms, since it last was another. */
  fullMs: number
  reopened: boolean
}

/** Stores of one processor that cannot be written: all are in one database, and each finds it out for itself. */
export class StoreFaults {
  readonly #options: StoreFaultsOptions
  readonly #faults = new Map<number, Fault>()
  #reopening: Promise<void> | undefined

  constructor(options: StoreFaultsOptions) {
    this.#options = options
    this.#count()
  }

  /** One line for each partition. */
  get problems(): string[] {
    return Array.from(this.#faults, ([partition, { since, reason }]) => {
      return `partition ${partition}: the store cannot be written since ${new Date(since).toISOString()}: ${reason}`
    })
  }

  /** For how long a store has been waiting for space, ms. */
  get fullMs(): number {
    return Math.max(0, ...Array.from(this.#faults.values(), ({ fullMs }) => fullMs))
  }

  has(partition: number): boolean {
    return this.#faults.has(partition)
  }

  /**
   * A write was refused, `waitedMs` after the one before it, if there was one. A full volume is waited for: RocksDB goes on by
   * itself. After any other failure of its own log it refuses all writes until it is opened anew; what is written before it
   * may be there already, and is written once more. Rejects when that does not help.
   */
  async refused(partition: number, error: unknown, waitedMs: number): Promise<void> {
    const { logger, now } = this.#options
    const { code, message } = databaseFailure(error instanceof Error && error.cause !== undefined ? error.cause : error)
    const noSpace = code === 'LEVEL_NO_SPACE'
    const out = wayOut(code, message)
    const reason = `${message}: ${out}`
    let fault = this.#faults.get(partition)
    if (fault === undefined) {
      fault = { since: now(), reason, untoldMs: REMIND_MS, spoiltMs: 0, fullMs: 0, reopened: false }
      this.#faults.set(partition, fault)
      this.#count()
    }
    fault.reason = reason
    fault.untoldMs += waitedMs
    fault.spoiltMs = noSpace ? 0 : fault.spoiltMs + waitedMs
    fault.fullMs = noSpace ? fault.fullMs + waitedMs : 0
    if (fault.untoldMs >= REMIND_MS) {
      fault.untoldMs = 0
      logger.error({ partition, since: fault.since, err: error }, 'store cannot be written: trying again')
    }
    if (fault.spoiltMs < SPOILT_MS) return
    if (fault.reopened) {
      const way = `${out} and start again; others go on with its partitions`
      throw new ConfigurationError('FOLDER_UNAVAILABLE', `the stores cannot be written: ${message}; ${way}`, error)
    }
    this.#reopening ??= this.#reopen().finally(() => {
      this.#reopening = undefined
    })
    await this.#reopening
  }

  async #reopen(): Promise<void> {
    const { instance, logger, reopen } = this.#options
    logger.warn({ instance }, 'the database of the stores refuses all writes: it is opened anew')
    await reopen()
    for (const fault of this.#faults.values()) {
      fault.spoiltMs = 0
      fault.reopened = true
    }
  }

  /** The store is written again, or nobody writes it any more. */
  over(partition: number): void {
    if (this.#faults.delete(partition)) this.#count()
  }

  #count(): void {
    this.#options.metrics.unwritable.set({ processor: this.#options.instance }, this.#faults.size)
  }
}

/** So long, ms, stores wait for space until others are to have their partitions. */
const PATIENCE_MS = 30_000
/** How often it is looked whether they wait, and then tried whether they would have to, ms. */
const LOOK_MS = 5_000
/**
 * How long a processor stays unfit, ms: at first, and at most. Space that comes and goes would have the partitions do so, and
 * each time copies be made.
 */
const MIN_UNFIT_MS = 5 * 60_000
const MAX_UNFIT_MS = 60 * 60_000

export interface FitnessOptions {
  readonly faults: Pick<StoreFaults, 'fullMs'>
  /** Writes a little to the database of the stores. Rejects with its error. */
  readonly probe: () => Promise<void>
  readonly monotonic: () => number
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
}

/**
 * Whether a processor should hold partitions. Unfit is one whose stores have waited for space; what it holds then others
 * take, so that it finds out by itself when it can write again.
 */
export class Fitness {
  readonly #options: FitnessOptions
  #unfitMs = 0
  /** When it became unfit; undefined while it is fit. */
  #since: number | undefined
  #fitSince = Number.NEGATIVE_INFINITY
  #problem: string | undefined

  constructor(options: FitnessOptions) {
    this.#options = options
  }

  get unfit(): boolean {
    return this.#since !== undefined
  }

  /** Why nothing could be written when it was tried last. */
  get problem(): string | undefined {
    return this.#problem
  }

  /** Until `signal` aborts. Never rejects. */
  async watch(signal: AbortSignal): Promise<void> {
    const { faults, monotonic, sleep } = this.#options
    for (;;) {
      await sleep(LOOK_MS, signal)
      if (signal.aborted) return
      if (this.#since === undefined) {
        if (faults.fullMs >= PATIENCE_MS) this.#giveUp(monotonic())
      } else {
        const hasSpace = await this.#hasSpace()
        if (hasSpace && monotonic() - this.#since >= this.#unfitMs) this.#takeUp(monotonic())
      }
    }
  }

  #giveUp(now: number): void {
    const isBack = now - this.#fitSince < MAX_UNFIT_MS
    this.#unfitMs = isBack ? Math.min(2 * this.#unfitMs, MAX_UNFIT_MS) : MIN_UNFIT_MS
    this.#since = now
  }

  #takeUp(now: number): void {
    this.#since = undefined
    this.#fitSince = now
    this.#problem = undefined
  }

  /** What else is wrong with the database is for those to meet who work with it. */
  async #hasSpace(): Promise<boolean> {
    try {
      await this.#options.probe()
      this.#problem = undefined
    } catch (error) {
      const { code, message } = databaseFailure(error)
      this.#problem = `the stores cannot be written: ${message}: ${wayOut(code, message)}`
      return code !== 'LEVEL_NO_SPACE'
    }
    return true
  }
}
