import type { Logger } from 'pino'
import type { Member } from '../../log.ts'
import type { KafkaMetrics } from '../metrics.ts'

/**
 * Whether a member is fit is told at each join; so long after it has changed, ms, one is asked for. Processors that share a
 * volume and write find out within 5 s of each other: told one by one, each would be given what the one before it had.
 */
const SAME_VOLUME_MS = 10_000

/** What the group knows of whether a member is fit. */
export class Standing {
  readonly #member: Member
  readonly #metrics: KafkaMetrics
  readonly #logger: Logger
  #told = false
  /** Since when that is not so any more, on the clock of performance.now(). */
  #changedAt: number | undefined

  constructor(member: Member, metrics: KafkaMetrics, logger: Logger) {
    this.#member = member
    this.#metrics = metrics
    this.#logger = logger
  }

  /** To be told with a join. */
  tell(): boolean {
    const { instance, unfit = false } = this.#member
    if (unfit && !this.#told) {
      this.#logger.warn(
        { instance },
        'the stores have no space: the group is asked to give the partitions of this processor to others',
      )
    } else if (!unfit && this.#told) {
      this.#logger.info(
        { instance },
        'the stores have had space again: this processor takes its part of the partitions',
      )
    }
    this.#metrics.unfit.set({ processor: instance }, Number(unfit))
    this.#told = unfit
    return unfit
  }

  /** Whether to join for it. Asked again and again. */
  get isDue(): boolean {
    const { unfit = false } = this.#member
    if (unfit === this.#told) this.#changedAt = undefined
    else this.#changedAt ??= performance.now()
    return this.#changedAt !== undefined && performance.now() - this.#changedAt >= SAME_VOLUME_MS
  }
}
