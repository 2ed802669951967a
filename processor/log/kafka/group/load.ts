import type { Offset } from '../../log.ts'
import type { Rates } from '../../placement/balance.ts'
import { CONTROL_LANE, type KafkaCluster } from '../cluster.ts'
import { CONSUMER } from '../protocol/wire.ts'

const LATEST = -1
const READ_UNCOMMITTED = 0
const PATIENCE_MS = 5000
/** Spans kept, the latest. */
const MAX_SPANS = 6

/**
 * What comes into each partition, from the ends of the log: who holds a partition, and how far he is behind, does not
 * change it, so that no move follows from another one.
 */
export class KafkaLoad {
  readonly #cluster: KafkaCluster
  readonly #topic: string
  readonly #partitions: number
  readonly #spans: Rates[] = []
  #last: { readonly ends: readonly Offset[]; readonly at: number } | undefined

  constructor(cluster: KafkaCluster, topic: string, partitions: number) {
    this.#cluster = cluster
    this.#topic = topic
    this.#partitions = partitions
  }

  /** Records per second of each partition between measurements, the oldest first. At most six. */
  get spans(): readonly Rates[] {
    return this.#spans
  }

  /** Ends a span. Rejects when Kafka does not answer; the span goes on then. */
  async measure(signal: AbortSignal): Promise<void> {
    const ends = await this.#cluster.persist(PATIENCE_MS, signal, () => this.#ends())
    const [at, last] = [performance.now(), this.#last]
    this.#last = { ends, at }
    if (last === undefined) return
    const seconds = (at - last.at) / 1000
    this.#spans.push(ends.map((end, partition) => Math.max(0, end - (last.ends[partition] ?? end)) / seconds))
    if (this.#spans.length > MAX_SPANS) this.#spans.shift()
  }

  /** One request to each broker that leads some. */
  async #ends(): Promise<Offset[]> {
    const partitions = Array.from({ length: this.#partitions }, (_, partition) => partition)
    const leaders = await Promise.all(partitions.map((partition) => this.#cluster.leader(this.#topic, partition)))
    const ends: Offset[] = []
    const asked = [...Map.groupBy(partitions, (partition) => leaders[partition] as number)].map(
      async ([leader, led]) => {
        const { requests } = await this.#cluster.connection(CONTROL_LANE, leader)
        const topics = [{ topic: this.#topic, partitions: led.map((partition) => ({ partition, timestamp: LATEST })) }]
        const answer = await requests.listOffsets({ replicaId: CONSUMER, isolationLevel: READ_UNCOMMITTED, topics })
        for (const { partition, offset } of answer.responses[0]?.partitions ?? []) ends[partition] = Number(offset)
      },
    )
    await Promise.all(asked)
    return partitions.map((partition) => {
      const end = ends[partition]
      if (end === undefined) throw new Error(`${this.#topic} ${partition}: an empty answer`)
      return end
    })
  }
}
