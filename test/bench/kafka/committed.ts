import pino from 'pino'
import { GROUP_COORDINATOR, KafkaCluster } from '../../../processor/log/kafka/cluster.ts'
import { Network } from '../../../processor/log/kafka/protocol/broker.ts'
import { pause } from '../../../processor/runtime/pause.ts'

const POLL_MS = 10
const PATIENCE_MS = 10_000
const LANE = 'bench'

/** What a group has committed of a topic: the one instrument for the product and its peer. */
export class Committed implements Disposable {
  readonly #network: Network
  readonly #cluster: KafkaCluster
  readonly #group: string
  readonly #topic: string
  readonly #partitions: readonly { partition: number }[]

  constructor(brokers: string, group: string, topic: string, partitions: number) {
    const logger = pino({ level: 'silent' })
    this.#network = new Network('bench', {}, logger)
    this.#cluster = new KafkaCluster(brokers.split(','), [topic], this.#network, logger)
    this.#group = group
    this.#topic = topic
    this.#partitions = Array.from({ length: partitions }, (_, partition) => ({ partition }))
  }

  /** Sum over the partitions. */
  async sum(): Promise<number> {
    // A Kafka that is new has no coordinator before it is asked for one.
    const { responses } = await this.#cluster.retry(PATIENCE_MS, undefined, async () => {
      const { requests } = await this.#cluster.coordinator(LANE, GROUP_COORDINATOR, this.#group)
      const topics = [{ topic: this.#topic, partitions: this.#partitions }]
      return requests.offsetFetch({ groupId: this.#group, topics })
    })
    const offsets = responses[0]?.partitions.map(({ offset }) => Math.max(0, Number(offset))) ?? []
    return offsets.reduce((sum, offset) => sum + offset, 0)
  }

  /** Resolves with the epoch ms at which at least `records` were committed. */
  async until(records: number, withinMs: number): Promise<number> {
    const deadline = Date.now() + withinMs
    for (;;) {
      const sum = await this.sum()
      const now = Date.now()
      if (sum >= records) return now
      if (now > deadline) throw new Error(`${sum} of ${records} records committed after ${withinMs} ms`)
      await pause(POLL_MS)
    }
  }

  [Symbol.dispose](): void {
    this.#network.close()
  }
}
