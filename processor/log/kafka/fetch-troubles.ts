import type { Logger } from 'pino'
import { Reminder } from '../../runtime/reminder.ts'
import type { Source } from './source.ts'

/** Fetches that fail pass mostly with the next one, or with another leader; those that have for so long, ms, are told of. */
const TELL_AFTER_MS = 10_000

/** Tells of brokers whose fetches fail for long. */
export class FetchTroubles {
  readonly #logger: Logger
  /** When the first fetch for it was sent that failed, with none since that did not. */
  readonly #since = new Map<Source, number>()
  /** By node id of the leader. */
  readonly #told = new Map<number, Reminder>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** A fetch from `leader`, sent at `asked` by performance.now(), has failed for `source`. */
  note(source: Source, leader: number, asked: number, error: unknown): void {
    const since = this.#since.get(source)
    // One failure is none that lasts, however late it came.
    if (since === undefined) return void this.#since.set(source, asked)
    const lasted = performance.now() - since
    if (lasted < TELL_AFTER_MS || !this.#toldOf(leader).isDue('')) return
    const { topic, index: partition } = source
    const seconds = Math.round(lasted / 1000)
    this.#logger.warn(
      { err: error, broker: leader, topic, partition },
      `fetches from a broker fail for ${seconds} s now`,
    )
  }

  #toldOf(leader: number): Reminder {
    let told = this.#told.get(leader)
    if (told === undefined) this.#told.set(leader, (told = new Reminder()))
    return told
  }

  /** A fetch for `source` has not failed, or nothing is fetched for it any more. */
  end(source: Source): void {
    this.#since.delete(source)
  }
}
