import { laneOf } from './kafka-claim-context.ts'
import { asTidemark, type KafkaCluster } from './kafka-cluster.ts'
import type { TopicNames } from './kafka-topics.ts'
import type { Offset, Partition, Topic } from './log.ts'

const EARLIEST = -2
const LATEST = -1
const CONSUMER = -1
const READ_UNCOMMITTED = 0
/** With it, the latest offset is the last stable one: everything before it is decided. */
const READ_COMMITTED = 1
const PATIENCE_MS = 10_000

export interface Ends {
  /** Offset after the last record before which all transactions are decided. */
  readonly stable: Offset
  /** Offset after the last record. */
  readonly end: Offset
}

/** Where partitions begin and end. Rejects with RetryableError when Kafka does not answer. */
export class KafkaBounds {
  readonly #cluster: KafkaCluster
  readonly #names: TopicNames
  readonly #closing: AbortSignal

  constructor(cluster: KafkaCluster, names: TopicNames, closing: AbortSignal) {
    this.#cluster = cluster
    this.#names = names
    this.#closing = closing
  }

  async bounds({ topic, index }: Partition): Promise<{ start: Offset; end: Offset }> {
    const [starts, ends] = await Promise.all([
      this.#offsets([topic], index, EARLIEST, READ_COMMITTED),
      this.#offsets([topic], index, LATEST, READ_COMMITTED),
    ])
    return { start: starts[0] as Offset, end: ends[0] as Offset }
  }

  /** Of the partition `index` of each of `topics`. */
  async ends(topics: readonly Topic[], index: number): Promise<Ends[]> {
    // In this order: what others append meanwhile must not look undecided.
    const ends = await this.#offsets(topics, index, LATEST, READ_UNCOMMITTED)
    const stable = await this.#offsets(topics, index, LATEST, READ_COMMITTED)
    return ends.map((end, i) => ({ stable: stable[i] as Offset, end }))
  }

  async #offsets(topics: readonly Topic[], index: number, timestamp: number, isolationLevel: number) {
    const names = topics.map((topic) => this.#names[topic])
    try {
      return await this.#cluster.persist(PATIENCE_MS, this.#closing, async () => {
        const leaders = await Promise.all(names.map((name) => this.#cluster.leader(name, index)))
        const offsets = new Map<string, Offset>()
        const asked = [...Map.groupBy(names, (_, i) => leaders[i] as number)].map(async ([leader, led]) => {
          const { requests } = await this.#cluster.connection(laneOf(index), leader)
          const partitions = [{ partition: index, timestamp }]
          const request = led.map((topic) => ({ topic, partitions }))
          const answer = await requests.listOffsets({ replicaId: CONSUMER, isolationLevel, topics: request })
          for (const { topic, partitions: told } of answer.responses) offsets.set(topic, Number(told[0]?.offset))
        })
        await Promise.all(asked)
        return names.map((name) => {
          const offset = offsets.get(name)
          if (offset === undefined) throw new Error(`${name} ${index}: an empty answer`)
          return offset
        })
      })
    } catch (error) {
      throw asTidemark(error, `the bounds of ${names.join(', ')} ${index} cannot be read`)
    }
  }
}
