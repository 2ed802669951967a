import pino from 'pino'
import { KafkaCluster } from '../../../processor/log/kafka/cluster.ts'
import { Network } from '../../../processor/log/kafka/protocol/broker.ts'
import { fetch } from '../../../processor/log/kafka/protocol/fetch.ts'
import {
  ATTRIBUTES_AT,
  BATCH_HEADER_BYTES,
  LAST_OFFSET_DELTA_AT,
  LENGTH_AT,
  PRODUCER_ID_AT,
} from '../../../processor/log/kafka/protocol/record-batch.ts'
import { readInt64 } from '../../../processor/log/kafka/protocol/wire.ts'

const LANE = 'bench'
const LIMITS = { maxWaitMs: 100, maxBytes: 8 * 1024 * 1024, maxPartitionBytes: 1024 * 1024 }
const CONSUMER = -1
const READ_COMMITTED = 1
const LATEST = -1
const EPOCH_AT = 51
const CONTROL = 0x20
const TAKEN_OVER_WITHIN_MS = 120_000

interface Seen {
  readonly topic: string
  readonly index: number
  position: number
  /** Producer id and epoch of the newest committed batch, and when it was read (epoch ms). */
  writer: string | undefined
  since: number
  /** When the newest committed batch was read (epoch ms), and for how long before `since` there was none, ms. */
  last: number
  stood: number
}

/**
 * Who writes each partition of a changelog, by the producer of its committed batches: a partition has moved when
 * another producer has committed to it. The one instrument for the product and its peer.
 */
export class Writers implements AsyncDisposable {
  readonly #network: Network
  readonly #cluster: KafkaCluster
  readonly #seen: readonly Seen[]
  readonly #closing = new AbortController()
  #running: Promise<void> = Promise.resolve()
  #wake: () => void = () => {}

  private constructor(brokers: string, topic: string, partitions: number) {
    const logger = pino({ level: 'silent' })
    this.#network = new Network('bench', {}, logger)
    this.#cluster = new KafkaCluster(brokers.split(','), [topic], this.#network, logger)
    this.#seen = Array.from({ length: partitions }, (_, index) => {
      return { topic, index, position: 0, writer: undefined, since: 0, last: 0, stood: 0 }
    })
  }

  /** Watches from the end of the topic on. */
  static async open(brokers: string, topic: string, partitions: number): Promise<Writers> {
    const writers = new Writers(brokers, topic, partitions)
    for (const seen of writers.#seen) seen.position = await writers.#end(seen)
    writers.#running = writers.#run()
    // Whoever waits is told; nobody may be waiting.
    writers.#running.catch(() => {})
    return writers
  }

  /** The writer of each partition; undefined where none has been seen. */
  now(): (string | undefined)[] {
    return this.#seen.map(({ writer }) => writer)
  }

  /** Resolves, when each of `partitions` has another writer than in `before`, with the epoch ms of those first commits. */
  async changed(partitions: readonly number[], before: readonly (string | undefined)[]): Promise<number[]> {
    const watched = partitions.map((index) => this.#seen[index] as Seen)
    await this.#until(() => watched.every(({ writer, index }) => writer !== undefined && writer !== before[index]))
    return watched.map(({ since }) => since)
  }

  /** For how long each partition had no commit before the first of its writer, ms; of the first writer of all, NaN. */
  stood(partitions: readonly number[]): number[] {
    return partitions.map((index) => (this.#seen[index] as Seen).stood)
  }

  /** Resolves, when every partition has a writer and `count` writers share them, with the epoch ms of the last change. */
  async shared(count: number): Promise<number> {
    await this.#until(() => !this.now().includes(undefined) && new Set(this.now()).size === count)
    return Math.max(...this.#seen.map(({ since }) => since))
  }

  async #until(isDone: () => boolean): Promise<void> {
    const deadline = Date.now() + TAKEN_OVER_WITHIN_MS
    while (!isDone()) {
      if (Date.now() > deadline) throw new Error(`no new writer after ${TAKEN_OVER_WITHIN_MS} ms: ${this.now().join()}`)
      await Promise.race([
        this.#running.then(() => Promise.reject(new Error('the watch has ended'))),
        new Promise<void>((resolve) => (this.#wake = resolve)),
      ])
    }
  }

  async #end({ topic, index }: Seen): Promise<number> {
    const { requests } = await this.#cluster.connection(LANE, await this.#cluster.leader(topic, index))
    const topics = [{ topic, partitions: [{ partition: index, timestamp: LATEST }] }]
    const answer = await requests.listOffsets({ replicaId: CONSUMER, isolationLevel: READ_COMMITTED, topics })
    return Number(answer.responses[0]?.partitions[0]?.offset)
  }

  async #run(): Promise<void> {
    const [first] = this.#seen as readonly [Seen]
    while (!this.#closing.signal.aborted) {
      const leader = await this.#cluster.leader(first.topic, first.index)
      const connection = await this.#cluster.connection(LANE, leader)
      const answers = await fetch(connection, this.#seen, LIMITS, () => undefined)
      const now = Date.now()
      for (const { index, bytes, error } of answers) {
        if (error !== undefined) throw error
        read(this.#seen[index] as Seen, bytes, now)
      }
      this.#wake()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort()
    this.#network.close()
    await this.#running.catch(() => {})
  }
}

function read(seen: Seen, bytes: Buffer, now: number): void {
  for (let at = 0; at + BATCH_HEADER_BYTES <= bytes.length; ) {
    const next = at + LENGTH_AT + 4 + bytes.readInt32BE(at + LENGTH_AT)
    if (next > bytes.length) return
    seen.position = readInt64(bytes, at) + bytes.readInt32BE(at + LAST_OFFSET_DELTA_AT) + 1
    if ((bytes.readInt16BE(at + ATTRIBUTES_AT) & CONTROL) === 0) {
      const writer = `${readInt64(bytes, at + PRODUCER_ID_AT)}:${bytes.readInt16BE(at + EPOCH_AT)}`
      if (writer !== seen.writer) {
        seen.stood = seen.writer === undefined ? Number.NaN : now - seen.last
        seen.writer = writer
        seen.since = now
      }
      seen.last = now
    }
    at = next
  }
}
