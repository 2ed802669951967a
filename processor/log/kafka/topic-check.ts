import type { TidemarkError } from '../../contract/errors.ts'
import type { BrokerConnection } from './protocol/broker.ts'
import type { Metadata } from './protocol/metadata.ts'
import type { TopicIds } from './topic-ids.ts'

/** What one leader is asked about one topic. */
interface Asking {
  underWay: Promise<Metadata> | undefined
  /** Begins when the one under way is answered. */
  next: Promise<Metadata> | undefined
}

/**
 * Asks leaders whether a topic is still the one that the log was opened with: one that leads a partition knows its topic
 * no later than it answers for it. A leader tells of all partitions at once, so it is asked one question at a time.
 */
export class TopicCheck {
  readonly #ids: TopicIds
  readonly #ask: (connection: BrokerConnection, topics: readonly string[]) => Promise<Metadata>
  /** By leader and topic: as many as there are of both. */
  readonly #asking = new Map<string, Asking>()

  constructor(ids: TopicIds, ask: (connection: BrokerConnection, topics: readonly string[]) => Promise<Metadata>) {
    this.#ids = ids
    this.#ask = ask
  }

  /**
   * Why what `leader` has said of positions in `topic` is not to be relied on. To be called when it has: a topic that is
   * created anew between the two answers has to show in the second one.
   */
  async doubt(topic: string, leader: number, connection: BrokerConnection): Promise<TidemarkError | undefined> {
    if (!this.#ids.holds(topic)) return undefined
    const name = `${leader} ${topic}`
    const asking = this.#asking.get(name) ?? { underWay: undefined, next: undefined }
    this.#asking.set(name, asking)
    asking.next ??= this.#after(asking, () => this.#ask(connection, [topic]))
    const { topics } = await asking.next
    return this.#ids.doubt(topic, topics)
  }

  async #after(asking: Asking, ask: () => Promise<Metadata>): Promise<Metadata> {
    await asking.underWay?.catch(() => {})
    // From here on, who calls comes too late for this one.
    asking.next = undefined
    asking.underWay = ask()
    return asking.underWay
  }
}
