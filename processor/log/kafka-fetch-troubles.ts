import type { Logger } from 'pino'
import type { Source } from './kafka-source.ts'

/** Fetches that fail pass mostly with the next one, or with another leader; those that have for so long, ms, are told of. */
const TELL_AFTER_MS = 10_000
/** Of a broker that still fails it is told again after so long, ms. */
const REMIND_MS = 60_000

/** Tells of brokers whose fetches fail for long. */
export class FetchTroubles {
  readonly #logger: Logger
  /** When the first fetch for it was sent that failed, with none since that did not. */
  readonly #since = new Map<Source, number>()
  /** When it was last told of a leader, by its node id. */
  readonly #toldAt = new Map<number, number>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** A fetch from `leader`, sent at `asked` by performance.now(), has failed for `source`. */
  note(source: Source, leader: number, asked: number, error: unknown): void {
    const since = this.#since.get(source)
    // One failure is none that lasts, however late it came.
    if (since === undefined) return void this.#since.set(source, asked)
    const now = performance.now()
    if (now - since < TELL_AFTER_MS || now - (this.#toldAt.get(leader) ?? Number.NEGATIVE_INFINITY) < REMIND_MS) return
    this.#toldAt.set(leader, now)
    const { topic, index: partition } = source
    const seconds = Math.round((now - since) / 1000)
    this.#logger.warn(
      { err: error, broker: leader, topic, partition },
      `fetches from a broker fail for ${seconds} s now`,
    )
  }

  /** A fetch for `source` has not failed, or nothing is fetched for it any more. */
  end(source: Source): void {
    this.#since.delete(source)
  }
}
