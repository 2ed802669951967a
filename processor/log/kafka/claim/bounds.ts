import type { Offset, Partition, Topic } from '../../log.ts'
import type { KafkaCluster } from '../cluster.ts'
import { asTidemark } from '../protocol/errors.ts'
import { CONSUMER } from '../protocol/wire.ts'
import type { TopicNames } from '../topics.ts'
import { laneOf } from './claim-context.ts'

interface Question {
  readonly timestamp: number
  readonly isolationLevel: number
}

/**
 * ListOffsets: timestamp -2 asks for the earliest offset, -1 for the latest. With isolation level 1 (read committed)
 * the latest is the last stable offset.
 */
const START: Question = { timestamp: -2, isolationLevel: 1 }
const END: Question = { timestamp: -1, isolationLevel: 0 }
const STABLE: Question = { timestamp: -1, isolationLevel: 1 }
const BOUNDS_TIMEOUT_MS = 10_000

export interface Ends {
  /** The last stable offset: all transactions before it are decided. */
  readonly stable: Offset
  /** The log end offset. */
  readonly end: Offset
}

/**
 * Where partitions begin and end. Rejects with RetryableError when Kafka does not answer; with LOG_MISMATCH when a
 * topic was created anew, because a copy that is ahead of the new one would be wiped.
 */
export class KafkaBounds {
  readonly #cluster: KafkaCluster
  readonly #names: TopicNames
  readonly #closing: AbortSignal

  constructor(cluster: KafkaCluster, names: TopicNames, closing: AbortSignal) {
    this.#cluster = cluster
    this.#names = names
    this.#closing = closing
  }

  async bounds({ topic, index }: Partition, signal?: AbortSignal): Promise<{ start: Offset; end: Offset }> {
    const until = signal === undefined ? this.#closing : AbortSignal.any([this.#closing, signal])
    const [[start], [end]] = (await this.#ask([topic], index, [START, STABLE], until)) as [[Offset], [Offset]]
    return { start, end }
  }

  /** The ends of partition `index` in each of `topics`. */
  async ends(topics: readonly Topic[], index: number): Promise<Ends[]> {
    // The end is asked for first: otherwise records appended in between would look undecided.
    const [ends, stable] = (await this.#ask(topics, index, [END, STABLE], this.#closing)) as [Offset[], Offset[]]
    return ends.map((end, i) => ({ stable: stable[i] as Offset, end }))
  }

  /** For each question, the offset in each topic. A broker answers one connection's requests in order. */
  async #ask(
    topics: readonly Topic[],
    index: number,
    questions: readonly Question[],
    until: AbortSignal,
  ): Promise<Offset[][]> {
    const names = topics.map((topic) => this.#names[topic])
    try {
      return await this.#cluster.retry(BOUNDS_TIMEOUT_MS, until, async () => {
        const leaders = await Promise.all(names.map((name) => this.#cluster.leader(name, index)))
        const offsets = questions.map(() => new Map<string, Offset>())
        const asked = [...Map.groupBy(names, (_, i) => leaders[i] as number)].map(async ([leader, led]) => {
          const connection = await this.#cluster.connection(laneOf(index), leader)
          const { requests } = connection
          const answers = questions.map(({ timestamp, isolationLevel }) => {
            const partitions = [{ partition: index, timestamp }]
            const asking = led.map((topic) => ({ topic, partitions }))
            return requests.listOffsets({ replicaId: CONSUMER, isolationLevel, topics: asking })
          })
          const told = await Promise.all(answers)
          const doubts = await Promise.all(led.map((topic) => this.#cluster.doubt(topic, leader, connection)))
          for (const doubt of doubts) if (doubt !== undefined) throw doubt
          for (const [i, { responses }] of told.entries()) {
            for (const { topic, partitions } of responses) offsets[i]?.set(topic, Number(partitions[0]?.offset))
          }
        })
        await Promise.all(asked)
        return offsets.map((told) => names.map((name) => offsetIn(told, name, index)))
      })
    } catch (error) {
      throw asTidemark(error, `the bounds of ${names.join(', ')} ${index} cannot be read`)
    }
  }
}

function offsetIn(told: ReadonlyMap<string, Offset>, name: string, index: number): Offset {
  const offset = told.get(name)
  if (offset === undefined) throw new Error(`${name} ${index}: an empty answer`)
  return offset
}
