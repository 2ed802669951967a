import type { Logger } from 'pino'
import type { Source } from './kafka-source.ts'

/** Fetches that fail pass mostly with the next one, or with another leader; those that have for so long, ms, are told of. */
const TELL_AFTER_MS = 10_000

/** Node id of the leader of a partition that has none. */
const NO_LEADER = -1

/** Tells of brokers whose fetches fail for long, once for each until what waits for it is read again. */
export class FetchTroubles {
  readonly #logger: Logger
  /** When the first fetch for it was sent that failed, with none since that did not. */
  readonly #since = new Map<Source, number>()
  /** By node id of the leader: what was not read when it was told of, and is not yet. */
  readonly #told = new Map<number, Set<Source>>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** A fetch from `leader`, sent at `asked` by performance.now(), has failed for `source`. */
  note(source: Source, leader: number, asked: number, error: unknown): void {
    const since = this.#since.get(source) ?? asked
    this.#since.set(source, since)
    if (performance.now() - since < TELL_AFTER_MS) return
    const waiting = this.#told.get(leader)
    if (waiting !== undefined) {
      waiting.add(source)
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

  /** A fetch for `source` from `leader` has not failed. */
  end(source: Source, leader: number): void {
    this.#since.delete(source)
    for (const [node, waiting] of this.#told) {
      const waited = waiting.delete(source)
      if (waiting.size > 0 || (!waited && node !== leader)) continue
      this.#told.delete(node)
      this.#logger.info({ broker: node }, 'what a broker did not give is read again')
    }
  }

  /** Nothing is fetched for `source` any more. Others may take it up: who was told of the broker hears of it by them. */
  forget(source: Source): void {
    this.#since.delete(source)
    for (const [node, waiting] of this.#told) {
      waiting.delete(source)
      // From nobody no fetch ever brings anything.
      if (node === NO_LEADER && waiting.size === 0) this.#told.delete(node)
    }
  }
}
