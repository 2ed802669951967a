// Fetch v12 (KIP-595): the first version whose answer tells a diverging epoch, and so that fetched records are lost.

import { ownCopy } from '../../../contract/json.ts'
import type { Offset } from '../../log.ts'
import { type BrokerConnection, errorOf } from './broker.ts'
import type { AbortedTransaction } from './records.ts'
import { CONSUMER, WireReader, WireWriter } from './wire.ts'

const FETCH = 1
const FETCH_VERSION = 12
const MIN_BYTES = 1
const READ_COMMITTED = 1
const NO_SESSION = [0, -1] as const
const UNKNOWN = -1
const DIVERGING_EPOCH = 0
/** A view keeps its whole answer in memory. Bytes that are less than this fraction of the answer are copied instead. */
const MAX_KEPT = 16

export interface FetchLimits {
  /** How long the broker waits for MIN_BYTES, ms. */
  readonly maxWaitMs: number
  readonly maxBytes: number
  readonly maxPartitionBytes: number
}

export interface FetchPosition {
  readonly topic: string
  readonly index: number
  readonly position: Offset
  /** Epoch of the leader that wrote the record before `position`; undefined until something was fetched. */
  readonly epoch?: number | undefined
}

export interface Fetched {
  readonly topic: string
  readonly index: number
  readonly error: Error | undefined
  /** The last stable offset. */
  readonly end: Offset
  readonly start: Offset
  /**
   * The first offset before the position at which the leader has other records now (KIP-320); undefined when nothing
   * was lost.
   */
  readonly lostFrom: Offset | undefined
  /** In the order of their first offsets. A broker lists them by their last ones. */
  readonly aborted: readonly AbortedTransaction[]
  readonly bytes: Buffer
}

/**
 * Fetches from many partitions; the broker answers as soon as one has something. `leaderEpoch` is the epoch under
 * which the broker leads a partition: with it a former leader that has not heard of its end answers
 * FENCED_LEADER_EPOCH, and does not judge positions.
 */
export async function fetch(
  connection: BrokerConnection,
  positions: readonly FetchPosition[],
  limits: FetchLimits,
  leaderEpoch: (position: FetchPosition) => number | undefined,
): Promise<Fetched[]> {
  const topics = Map.groupBy(positions, ({ topic }) => topic)
  const writer = new WireWriter(64 + positions.length * 40)
    .unsignedVarint(0)
    .int32(CONSUMER)
    .int32(limits.maxWaitMs)
    .int32(MIN_BYTES)
    .int32(limits.maxBytes)
    .int8(READ_COMMITTED)
    .int32(NO_SESSION[0])
    .int32(NO_SESSION[1])
    .unsignedVarint(topics.size + 1)
  for (const [topic, partitions] of topics) {
    writer.compactString(topic).unsignedVarint(partitions.length + 1)
    for (const partition of partitions) {
      const { index, position, epoch = UNKNOWN } = partition
      writer
        .int32(index)
        .int32(leaderEpoch(partition) ?? UNKNOWN)
        .int64(position)
        .int32(epoch)
      writer.int64(UNKNOWN).int32(limits.maxPartitionBytes).unsignedVarint(0)
    }
    writer.unsignedVarint(0)
  }
  // No forgotten partitions (KIP-227), no rack (KIP-392).
  writer.unsignedVarint(1).compactString('').unsignedVarint(0)
  return decode(await connection.send(FETCH, 'Fetch', FETCH_VERSION, [writer.finish()]))
}

function decode(body: Buffer): Fetched[] {
  const reader = new WireReader(body)
  reader.tags()
  reader.int32()
  const code = reader.int16()
  if (code !== 0) throw errorOf(code)
  reader.int32()
  const fetched: Fetched[] = []
  reader.compactArray(() => {
    const topic = reader.compactString() ?? ''
    reader.compactArray(() => {
      const index = reader.int32()
      const error = reader.int16()
      reader.int64()
      const end = reader.int64()
      const start = reader.int64()
      const aborted = reader.compactArray(() => abortedTransaction(reader))
      if (aborted.length > 1) aborted.sort((a, b) => a.firstOffset - b.firstOffset)
      reader.int32()
      const bytes = keepable(reader.compactBytesOrNull() ?? Buffer.alloc(0), body)
      let lostFrom: Offset | undefined
      reader.tags((tag) => {
        if (tag !== DIVERGING_EPOCH) return
        reader.int32()
        lostFrom = reader.int64()
      })
      fetched.push({
        topic,
        index,
        error: error === 0 ? undefined : errorOf(error),
        end,
        start,
        lostFrom,
        aborted,
        bytes,
      })
    })
    reader.tags()
  })
  return fetched
}

function keepable(bytes: Buffer, answer: Buffer): Buffer {
  return bytes.length < answer.length / MAX_KEPT ? ownCopy(bytes) : bytes
}

function abortedTransaction(reader: WireReader): AbortedTransaction {
  const transaction = { producerId: reader.int64(), firstOffset: reader.int64() }
  reader.tags()
  return transaction
}
