// Produce v7, and how many bytes one such request should hold.

import type { Offset } from '../../log.ts'
import { type BrokerConnection, errorOf, REQUEST_TIMEOUT_MS } from './broker.ts'
import { WireReader, WireWriter } from './wire.ts'

const PRODUCE = 0
const PRODUCE_VERSION = 7
const ACKS_ALL = -1
/** The broker gives up on its replicas before the connection gives up on the broker. */
const REPLICATION_TIMEOUT_MS = REQUEST_TIMEOUT_MS - 3000

/** A produce request holds at most one record batch for each partition. */
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

/** Resolves with each batch's outcome, once all in-sync replicas have the batches that were taken (acks=all). */
export async function produce(
  connection: BrokerConnection,
  transactionalId: string | null,
  batches: readonly PartitionBatch[],
): Promise<Produced[]> {
  const topics = Map.groupBy(batches, (batch) => batch.topic)
  // Record batches are sent without a copy, between the pieces around them.
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

/** Below this many bytes the time does not depend on the size. */
const MIN_BYTES = 16 * 1024

/**
 * A slow request shrinks the window to a quarter of what the link carries in `slowMs`; a full quick one grows it by
 * half.
 */
const SHRINK = 4

const GROW = 1.5

/** Latency of up to this multiple of `slowMs` is laid to the broker. More is laid to the link. */
const LATENCY_MOST = 2

/** One quick answer lowers the known latency by a fifth only. */
const LATENCY_KEPT = 0.8

/**
 * How many bytes one request should hold, for one broker or one partition. A slow link shows no progress while it
 * sends: the kernel takes megabytes at once (4 MiB by default on Linux, net.ipv4.tcp_wmem), so only an answer shows
 * life. Requests must therefore be small enough that the answer arrives well before anybody gives up; the size follows
 * the time that the last ones took.
 */
export class KafkaWindow {
  readonly #maxBytes: number
  readonly #slowMs: number
  #bytes: number
  /** Time of small requests of late: a slow broker answers smaller ones no sooner. */
  #latencyMs = 0

  /**
   * `firstBytes` holds until something is known of the link. A request is too large when it takes `slowMs` longer than
   * the smallest.
   */
  constructor(firstBytes: number, maxBytes: number, slowMs: number) {
    this.#maxBytes = maxBytes
    this.#slowMs = slowMs
    this.#bytes = firstBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  /** `bytes` were answered, or given up, after `tookMs`. `isFull`: there was more to send. */
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

/** One window for each broker, or each partition. */
export class KafkaWindows {
  readonly #newWindow: () => KafkaWindow
  readonly #windows = new Map<number, KafkaWindow>()

  constructor(firstBytes: number, maxBytes: number, slowMs: number) {
    this.#newWindow = () => new KafkaWindow(firstBytes, maxBytes, slowMs)
  }

  of(id: number): KafkaWindow {
    const window = this.#windows.get(id) ?? this.#newWindow()
    this.#windows.set(id, window)
    return window
  }
}
