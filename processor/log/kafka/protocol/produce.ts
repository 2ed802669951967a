import type { Offset } from '../../log.ts'
import { type BrokerConnection, errorOf, REQUEST_TIMEOUT_MS } from './broker.ts'
import { WireReader, WireWriter } from './wire.ts'

const PRODUCE = 0
const PRODUCE_VERSION = 7
const ACKS_ALL = -1
/** The broker gives up waiting for replicas before the connection gives up on the broker. */
const REPLICATION_TIMEOUT_MS = REQUEST_TIMEOUT_MS - 3000

/** One record batch for one partition: a produce request takes no more than one for each. */
export interface PartitionBatch {
  readonly topic: string
  readonly partition: number
  readonly bytes: Buffer
}

export interface Produced {
  readonly topic: string
  readonly partition: number
  /** Offset of the first record; undefined when `error` is set. */
  readonly baseOffset: Offset
  readonly error: Error | undefined
}

/** Resolves with what became of each batch, when all in-sync replicas have what was taken. */
export async function produce(
  connection: BrokerConnection,
  transactionalId: string | null,
  batches: readonly PartitionBatch[],
): Promise<Produced[]> {
  const topics = Map.groupBy(batches, (batch) => batch.topic)
  // Record batches are sent as they are, between pieces of what stands around them.
  const body: Buffer[] = []
  let writer = new WireWriter().string(transactionalId).int16(ACKS_ALL).int32(REPLICATION_TIMEOUT_MS).int32(topics.size)
  for (const [topic, partitions] of topics) {
    writer.string(topic).int32(partitions.length)
    for (const { partition, bytes } of partitions) {
      body.push(writer.int32(partition).int32(bytes.length).finish(), bytes)
      writer = new WireWriter()
    }
  }
  return decode(await connection.send(PRODUCE, 'Produce', PRODUCE_VERSION, body))
}

function decode(body: Buffer): Produced[] {
  const reader = new WireReader(body)
  const produced: Produced[] = []
  reader.array(() => {
    const topic = reader.string() ?? ''
    reader.array(() => {
      const partition = reader.int32()
      const code = reader.int16()
      const baseOffset = reader.int64()
      reader.int64()
      reader.int64()
      produced.push({ topic, partition, baseOffset, error: code === 0 ? undefined : errorOf(code) })
    })
  })
  return produced
}

/** Less than that, bytes, takes long for other reasons than its size. */
const MIN_BYTES = 16 * 1024

/** What was slow becomes so much shorter; what was not, and was full, so much longer. */
const SHRINK = 4

const GROW = 1.5

/** Of `slowMs`: what more the smallest take is laid to the link all the same. */
const LATENCY_MOST = 2

/** Of what was known, so that one quick answer among slow ones does not hide them. */
const LATENCY_KEPT = 0.8

/**
 * How many bytes are sent at once, to one broker or of one partition: another may be quicker. Over a slow link that takes
 * its time, and nothing tells that it goes on: the kernel takes megabytes in no time (up to 4 MiB by default on Linux,
 * net.ipv4.tcp_wmem), and so does what stands between, so to a socket a slow link looks as a dead one does. Only an answer
 * is a sign of life. So what is sent is to be so small that its answer comes well before anybody gives up on it: its size
 * follows the time that the last ones took.
 */
export class KafkaWindow {
  readonly #maxBytes: number
  readonly #slowMs: number
  #bytes: number
  /** What the smallest took of late: a broker that is slow answers smaller ones no sooner. */
  #latencyMs = 0

  /** `firstBytes`: before anything is known of the link. `slowMs`: what takes so much longer than the smallest is too large. */
  constructor(firstBytes: number, maxBytes: number, slowMs: number) {
    this.#maxBytes = maxBytes
    this.#slowMs = slowMs
    this.#bytes = firstBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  /** `bytes` were answered, or given up, after `tookMs`. `isFull`: with more room, more would have been sent. */
  took(bytes: number, tookMs: number, isFull: boolean): void {
    if (bytes <= MIN_BYTES) {
      this.#latencyMs = Math.min(LATENCY_MOST * this.#slowMs, Math.max(tookMs, LATENCY_KEPT * this.#latencyMs))
    }
    const ownMs = tookMs - this.#latencyMs
    if (ownMs > this.#slowMs) {
      const fit = Math.floor((bytes * this.#slowMs) / SHRINK / ownMs)
      this.#bytes = Math.max(MIN_BYTES, Math.min(this.#bytes, fit))
    } else if (isFull) {
      this.#bytes = Math.min(this.#maxBytes, Math.floor(this.#bytes * GROW))
    }
  }
}

/** By broker, or by partition. */
export class KafkaWindows {
  readonly #newWindow: () => KafkaWindow
  readonly #windows = new Map<number, KafkaWindow>()

  /** See KafkaWindow. */
  constructor(firstBytes: number, maxBytes: number, slowMs: number) {
    this.#newWindow = () => new KafkaWindow(firstBytes, maxBytes, slowMs)
  }

  of(id: number): KafkaWindow {
    const window = this.#windows.get(id) ?? this.#newWindow()
    this.#windows.set(id, window)
    return window
  }
}
