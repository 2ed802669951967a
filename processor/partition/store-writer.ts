import type { Logger } from 'pino'
import { ConfigurationError, databaseFailure, StoreCorruptedError, wayOut } from '../contract/errors.ts'
import type { ProcessorMetrics } from '../metrics.ts'
import { Backoff } from '../runtime/pause.ts'
import type { RoleClock } from './role.ts'

/**
 * A database that refuses writes for this long, ms, for another reason than a full volume, is reopened. After as long
 * again the processor gives up, and others take its partitions.
 */
const BROKEN_MS = 10_000
/** A fault that lasts is logged again after this long, ms. */
const REMIND_MS = 60_000

export interface StoreWriterOptions {
  readonly instance: string
  readonly metrics: ProcessorMetrics
  readonly logger: Logger
  readonly clock: RoleClock
  /** First and longest wait before a write is tried again, ms. */
  readonly retryMinMs: number
  readonly retryMaxMs: number
  /** Closes and opens the database under its users. Rejects with what must end the process. */
  readonly reopen: () => Promise<void>
}

/** Why the store of a partition cannot be written. All durations are sums of waits, ms. */
interface Fault {
  readonly since: number
  reason: string
  /** Since the fault was last logged. */
  unloggedMs: number
  /** For another reason than a full volume, in a row, since the database was opened. */
  brokenMs: number
  /** For a full volume, in a row. */
  fullMs: number
  reopened: boolean
}

/**
 * Writes to the stores of one processor until they succeed: what is committed to the log must not be skipped. All stores
 * are in one database, yet each partition meets its fault by itself.
 */
export class StoreWriter {
  readonly #options: StoreWriterOptions
  readonly #faults = new Map<number, Fault>()
  #reopening: Promise<void> | undefined

  constructor(options: StoreWriterOptions) {
    this.#options = options
    this.#count()
  }

  /** One line for each partition whose store cannot be written. */
  get problems(): string[] {
    return Array.from(this.#faults, ([partition, { since, reason }]) => {
      return `partition ${partition}: the store cannot be written since ${new Date(since).toISOString()}: ${reason}`
    })
  }

  /** For how long a store has been waiting for space, ms. */
  get fullMs(): number {
    return Math.max(0, ...Array.from(this.#faults.values(), ({ fullMs }) => fullMs))
  }

  isFailing(partition: number): boolean {
    return this.#faults.has(partition)
  }

  /**
   * Tries `write` until it succeeds, and waits in between; calls `onRefused` after each failure. False when `signal` aborted
   * first. Rejects with StoreCorruptedError, and with ConfigurationError when the database stays broken.
   */
  async persist(
    partition: number,
    write: () => Promise<void>,
    signal: AbortSignal,
    onRefused: () => void = () => {},
  ): Promise<boolean> {
    const { instance, metrics, logger, clock, retryMinMs, retryMaxMs } = this.#options
    const began = clock.monotonic()
    const backoff = new Backoff(retryMinMs, retryMaxMs)
    let waited = 0
    try {
      for (let failures = 0; ; failures++) {
        try {
          await write()
          if (failures > 0) logger.info({ partition, failures }, 'store writes again')
          metrics.storeSeconds.observe({ processor: instance }, (clock.monotonic() - began) / 1000)
          return true
        } catch (error) {
          if (error instanceof StoreCorruptedError) throw error
          onRefused()
          await this.#refused(partition, error, waited)
        }
        waited = backoff.next()
        await clock.sleep(waited, signal)
        if (signal.aborted) return false
      }
    } finally {
      if (this.#faults.delete(partition)) this.#count()
    }
  }

  /**
   * RocksDB writes again by itself once a full volume has space. After any other failure of its own log it refuses all
   * writes until it is reopened; the write that failed may have been made, and is made again. `waitedMs`: since the try
   * before.
   */
  async #refused(partition: number, error: unknown, waitedMs: number): Promise<void> {
    const { logger, clock } = this.#options
    const { code, message } = databaseFailure(error instanceof Error && error.cause !== undefined ? error.cause : error)
    const noSpace = code === 'LEVEL_NO_SPACE'
    const out = wayOut(code, message)
    const reason = `${message}: ${out}`
    let fault = this.#faults.get(partition)
    if (fault === undefined) {
      fault = { since: clock.now(), reason, unloggedMs: REMIND_MS, brokenMs: 0, fullMs: 0, reopened: false }
      this.#faults.set(partition, fault)
      this.#count()
    }
    fault.reason = reason
    fault.unloggedMs += waitedMs
    fault.brokenMs = noSpace ? 0 : fault.brokenMs + waitedMs
    fault.fullMs = noSpace ? fault.fullMs + waitedMs : 0
    if (fault.unloggedMs >= REMIND_MS) {
      fault.unloggedMs = 0
      logger.error({ partition, since: fault.since, err: error }, 'store cannot be written: trying again')
    }
    if (fault.brokenMs < BROKEN_MS) return
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
      fault.brokenMs = 0
      fault.reopened = true
    }
  }

  #count(): void {
    this.#options.metrics.unwritable.set({ processor: this.#options.instance }, this.#faults.size)
  }
}
