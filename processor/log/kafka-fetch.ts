import { type BrokerConnection, errorOf } from './kafka-broker.ts'
import type { AbortedTransaction } from './kafka-records.ts'
import { WireReader, WireWriter } from './kafka-wire.ts'
import type { Offset } from './log.ts'

const FETCH = 1
const FETCH_VERSION = 11
const CONSUMER = -1
const MIN_BYTES = 1
const READ_COMMITTED = 1
const NO_SESSION = [0, -1] as const
const UNKNOWN = -1

export interface FetchLimits {
  /** How long the broker waits for the first byte, ms. */
  readonly maxWaitMs: number
  readonly maxBytes: number
  readonly maxPartitionBytes: number
}

export interface FetchPosition {
  readonly topic: string
  readonly index: number
  readonly position: Offset
}

export interface Fetched {
  readonly topic: string
  readonly index: number
  readonly error: Error | undefined
  /** The last stable offset: all before it is decided. */
  readonly end: Offset
  readonly start: Offset
  /** In the order of their first offsets. */
  readonly aborted: readonly AbortedTransaction[]
  readonly bytes: Buffer
}

/** One request for many partitions; the broker answers at once when it has something for any of them. */
export async function fetch(
  connection: BrokerConnection,
  positions: readonly FetchPosition[],
  limits: FetchLimits,
): Promise<Fetched[]> {
  const topics = Map.groupBy(positions, ({ topic }) => topic)
  const writer = new WireWriter(64 + positions.length * 32)
    .int32(CONSUMER)
    .int32(limits.maxWaitMs)
    .int32(MIN_BYTES)
    .int32(limits.maxBytes)
    .int8(READ_COMMITTED)
    .int32(NO_SESSION[0])
    .int32(NO_SESSION[1])
    .int32(topics.size)
  for (const [topic, partitions] of topics) {
    writer.string(topic).int32(partitions.length)
    for (const { index, position } of partitions) {
      writer.int32(index).int32(UNKNOWN).int64(position).int64(UNKNOWN).int32(limits.maxPartitionBytes)
    }
  }
  // No forgotten partitions, no rack.
  writer.int32(0).string('')
  return decode(await connection.send(FETCH, 'Fetch', FETCH_VERSION, [writer.finish()]))
}

function decode(body: Buffer): Fetched[] {
  const reader = new WireReader(body)
  reader.int32()
  const code = reader.int16()
  if (code !== 0) throw errorOf(code)
  reader.int32()
  const fetched: Fetched[] = []
  reader.array(() => {
    const topic = reader.string() ?? ''
    reader.array(() => {
      const index = reader.int32()
      const error = reader.int16()
      reader.int64()
      const end = reader.int64()
      const start = reader.int64()
      const aborted = reader.array(() => ({ producerId: reader.int64(), firstOffset: reader.int64() }))
      // The broker names them by their last offsets.
      if (aborted.length > 1) aborted.sort((a, b) => a.firstOffset - b.firstOffset)
      reader.int32()
      const bytes = reader.bytesOrNull() ?? Buffer.alloc(0)
      fetched.push({ topic, index, error: error === 0 ? undefined : errorOf(error), end, start, aborted, bytes })
    })
  })
  return fetched
}
