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
