import { randomUUID } from 'node:crypto'
import { createRequire } from 'node:module'
import { type Admin, type ISocketFactory, Kafka, type KafkaConfig, type KafkaMessage, logLevel } from 'kafkajs'
import { hostAndPort } from '../../../processor/contract/address.ts'
import type { Committed } from './stage.ts'

export interface KafkaRecord {
  readonly partition: number
  readonly offset: number
  readonly key: string | null
  readonly value: Buffer | null
  readonly timestamp: number
  readonly headers: Readonly<Record<string, string>>
  /** Epoch of the producer of the transaction. It grows with every claim of the partition. */
  readonly epoch: number
}

export interface GroupDescription {
  readonly stable: boolean
  readonly members: readonly { readonly metadata: Buffer; readonly assignment: Buffer }[]
}

export interface KafkaAccess {
  readonly brokers: readonly string[]
  readonly ssl?: KafkaConfig['ssl']
  readonly sasl?: KafkaConfig['sasl']
}

const require = createRequire(import.meta.url)
const openSocket = (require('kafkajs/src/network/socketFactory') as () => ISocketFactory)()

/** Epochs of one producer id are 16 bits; a newer id outranks them all. */
const EPOCHS = 0x1_0000
const RETRY = { retries: 8, initialRetryTime: 50, maxRetryTime: 1_000 }
/** Reading before the ends gives up after this many milliseconds without a record. */
const SILENCE_MS = 10_000
/** Reading beyond the ends stops after this many milliseconds without a record, or in all where others go on writing. */
const IDLE_MS = 400
const BEYOND_MS = 60_000

/**
 * Kafka as any other program sees it: through a plain kafkajs, by the topics' and the group's names alone. It shares no
 * code with the product's own reading and committing.
 */
export class KafkaClient implements AsyncDisposable {
  readonly #kafka: Kafka
  readonly #admin: Admin

  private constructor(kafka: Kafka) {
    this.#kafka = kafka
    this.#admin = kafka.admin({ retry: RETRY })
  }

  static async open({ brokers, ssl, sasl }: KafkaAccess): Promise<KafkaClient> {
    // Loading it keeps kafkajs's timers from warnings, in the whole process.
    await import('../../../processor/log/kafka/protocol/broker.ts')
    // kafkajs cuts an address at its first colon, so each host gets a name that no real host has (RFC 2606).
    const addresses = brokers.map(hostAndPort)
    const hosts = new Map(addresses.map(({ host }, i) => [`seed-${i}.invalid`, host]))
    const kafka = new Kafka({
      clientId: 'drill',
      brokers: addresses.map(({ port }, i) => `seed-${i}.invalid:${port}`),
      // Brokers that answer name the others by their own hosts.
      socketFactory: (target) => openSocket({ ...target, host: hosts.get(target.host) ?? target.host }),
      ...(ssl === undefined ? {} : { ssl }),
      ...(sasl === undefined ? {} : { sasl }),
      logLevel: logLevel.NOTHING,
      connectionTimeout: 2_000,
      requestTimeout: 5_000,
    })
    const client = new KafkaClient(kafka)
    await client.#admin.connect()
    return client
  }

  async group(group: string): Promise<GroupDescription> {
    const { groups } = await this.#admin.describeGroups([group])
    const [found] = groups
    const members = (found?.members ?? []).map(({ memberMetadata, memberAssignment }) => ({
      metadata: memberMetadata,
      assignment: memberAssignment,
    }))
    return { stable: found?.state === 'Stable' || found?.state === 'Empty', members }
  }

  /** By partition; undefined where nothing was committed. */
  async committed(group: string, topic: string): Promise<(Committed | undefined)[]> {
    const [found] = await this.#admin.fetchOffsets({ groupId: group, topics: [topic] })
    const committed: (Committed | undefined)[] = []
    for (const { partition, offset, metadata } of found?.partitions ?? []) {
      const input = Number(offset)
      committed[partition] = input < 0 ? undefined : { input, changelogEnd: endIn(metadata) }
    }
    return committed
  }

  /** Names of the topics that begin with `prefix`. */
  async topics(prefix: string): Promise<string[]> {
    return (await this.#admin.listTopics()).filter((topic) => topic.startsWith(prefix))
  }

  async remove(topics: string[]): Promise<void> {
    if (topics.length > 0) await this.#admin.deleteTopics({ topics })
  }

  /** Ends of a topic, by partition; control records of transactions count. */
  async ends(topic: string): Promise<number[]> {
    const ends: number[] = []
    for (const { partition, high } of await this.#admin.fetchTopicOffsets(topic)) ends[partition] = Number(high)
    return ends
  }

  /** Offset of the first record that is still there, by partition. */
  async starts(topic: string): Promise<number[]> {
    const starts: number[] = []
    for (const { partition, low } of await this.#admin.fetchTopicOffsets(topic)) starts[partition] = Number(low)
    return starts
  }

  /**
   * Gives every committed record from the start of the topic up to `ends`, in the order of each partition; with `beyond`
   * also those after the ends. Resolves with the offset after the last record of each partition, which is less than its end
   * when records are missing.
   */
  async read(
    topic: string,
    ends: readonly number[],
    take: (record: KafkaRecord) => void,
    beyond = false,
  ): Promise<number[]> {
    const left = new Set(ends.flatMap((end, partition) => (end > 0 ? [partition] : [])))
    const reached = ends.map(() => 0)
    if (left.size === 0 && !beyond) return reached
    const groupId = `drill-${randomUUID()}`
    const consumer = this.#kafka.consumer({ groupId, maxWaitTimeInMs: 50, retry: RETRY, readUncommitted: false })
    const { promise: done, resolve, reject } = Promise.withResolvers<void>()
    const began = performance.now()
    let last = began
    const watch = setInterval(() => {
      const now = performance.now()
      const idle = now - last
      if (left.size > 0 ? idle > SILENCE_MS : !beyond || idle > IDLE_MS || now - began > BEYOND_MS) resolve()
    }, 20)
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      if (!payload.restart) reject(payload.error)
    })
    try {
      await consumer.connect()
      await consumer.subscribe({ topics: [topic], fromBeginning: true })
      await consumer.run({
        autoCommit: false,
        eachBatch: async (payload) => {
          const { batch } = payload
          last = performance.now()
          const { partition } = batch
          const end = ends[partition] ?? 0
          for (const message of batch.messages) {
            const offset = Number(message.offset)
            // A restart of the consumer may bring a record again.
            if (offset < (reached[partition] ?? 0) || (offset >= end && !beyond)) continue
            take(recordOf(partition, message))
            reached[partition] = offset + 1
          }
          if (Number(batch.lastOffset()) >= end - 1) left.delete(partition)
          await payload.heartbeat()
        },
      })
      await done
    } finally {
      clearInterval(watch)
      await consumer.disconnect()
      // A busy coordinator may refuse; Kafka forgets a group without members and offsets by itself.
      await this.#admin.deleteGroups([groupId]).catch(() => undefined)
    }
    return reached
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#admin.disconnect()
  }
}

/** The changelog's end is the first word of the committed offset's metadata; NaN when there is none. */
function endIn(metadata: string | null): number {
  const [end = ''] = (metadata ?? '').split(' ', 1)
  return /^\d+$/.test(end) ? Number(end) : Number.NaN
}

/** kafkajs gives each record its batch, which its types do not say. */
interface InBatch {
  readonly batchContext?: { readonly producerId: string; readonly producerEpoch: number }
}

function recordOf(partition: number, message: KafkaMessage & InBatch): KafkaRecord {
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries(message.headers ?? {})) headers[name] = String(value)
  const { producerId = '-1', producerEpoch = -1 } = message.batchContext ?? {}
  return {
    partition,
    offset: Number(message.offset),
    key: message.key === null ? null : message.key.toString(),
    value: message.value,
    timestamp: Number(message.timestamp),
    headers,
    epoch: Number(producerId) * EPOCHS + producerEpoch,
  }
}
