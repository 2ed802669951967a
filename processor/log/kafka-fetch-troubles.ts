import type { Logger } from 'pino'
import type { Source } from './kafka-source.ts'

/** Fetches that fail pass mostly with the next one, or with another leader; those that have for so long, ms, are told of. */
const TELL_AFTER_MS = 10_000

/** Tells of brokers whose fetches fail for long, once for each until all that waits for it is read again. */
export class FetchTroubles {
  readonly #logger: Logger
  /** When the first fetch for it was sent that failed, with none since that did not. */
  readonly #since = new Map<Source, number>()
  /** By node id of the leader: what was not read when it was told of, and is not yet. */
  readonly #told = new Map<number, Set<Source>>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** A fetch from `leader`, sent at `asked` by performance.now(), brought nothing for `source`; -1: there is no leader. */
  note(source: Source, leader: number, asked: number, error: unknown): void {
    const since = this.#since.get(source) ?? asked
    this.#since.set(source, since)
    if (performance.now() - since < TELL_AFTER_MS) return
    const told = this.#told.get(leader)
    if (told !== undefined) {
      told.add(source)
      return
    }
    this.#told.set(leader, new Set([source]))
    const { topic, index: partition } = source
    const seconds = TELL_AFTER_MS / 1000
    this.#logger.warn(
      { err: error, broker: leader, topic, partition },
      `fetches from a broker fail for ${seconds} s now`,
    )
  }

  /** A fetch for `source` has not failed. */
  end(source: Source): void {
    for (const leader of this.forget(source)) {
      this.#logger.info({ broker: leader }, 'what a broker did not give is read again')
    }
  }

  /** Nothing is fetched for `source` any more. Returns the leaders that were told of, and now have nothing waiting for them. */
  forget(source: Source): number[] {
    if (!this.#since.delete(source)) return []
    const over: number[] = []
    for (const [leader, told] of this.#told) {
      if (!told.delete(source) || told.size > 0) continue
      this.#told.delete(leader)
      over.push(leader)
    }
    return over
  }
}
