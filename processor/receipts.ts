import type { Logger } from 'pino'
import type { ProcessorMetrics } from './metrics.ts'
import { Reminder } from './runtime/reminder.ts'

/** A record that was received so much later than now, ms, was stamped by a clock that is wrong, or this one is. */
const APART_MS = 60_000

export interface ReceiptsOptions {
  readonly instance: string
  readonly metrics: ProcessorMetrics
  readonly logger: Logger
  /** Epoch ms. */
  readonly now: () => number
}

/** How old records are when their effect can be read: by two clocks, that of ingest and that of this process. */
export class Receipts {
  readonly #options: ReceiptsOptions
  readonly #told = new Reminder()

  constructor(options: ReceiptsOptions) {
    this.#options = options
  }

  /** `receivedAt`: of the first record of a batch, epoch ms. */
  applied(partition: number, receivedAt: number): void {
    const { instance, metrics, logger, now } = this.#options
    const ageMs = now() - receivedAt
    metrics.endToEndSeconds.observe({ processor: instance }, Math.max(0, ageMs) / 1000)
    if (ageMs >= -APART_MS) return
    const what =
      'records come stamped later than now: set the clock that is wrong, of who stamped them or of this process'
    if (this.#told.isDue(what)) logger.warn({ partition, aheadSeconds: Math.round(-ageMs / 1000) }, what)
  }
}
