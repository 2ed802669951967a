import type { Offset } from '../../log.ts'
import { type BrokerConnection, errorOf } from '../protocol/broker.ts'
import { CONSUMER, WireReader, WireWriter } from '../protocol/wire.ts'

const OFFSET_FOR_LEADER_EPOCH = 23
const OFFSET_FOR_LEADER_EPOCH_VERSION = 3
const UNKNOWN = -1

/**
 * Where what the leaders up to `epoch` have written ends (KIP-320); undefined when the leader that is asked cannot tell.
 * A position before which all was written by them, and which is past that end, has lost what it stands behind.
 */
export async function epochEnd(
  connection: BrokerConnection,
  topic: string,
  partition: number,
  epoch: number,
): Promise<Offset | undefined> {
  const writer = new WireWriter().int32(CONSUMER).int32(1).string(topic).int32(1)
  const request = writer.int32(partition).int32(UNKNOWN).int32(epoch).finish()
  const version = OFFSET_FOR_LEADER_EPOCH_VERSION
  const body = await connection.send(OFFSET_FOR_LEADER_EPOCH, 'OffsetForLeaderEpoch', version, [request])
  const reader = new WireReader(body)
  reader.int32()
  let end = UNKNOWN
  reader.array(() => {
    reader.string()
    reader.array(() => {
      const code = reader.int16()
      if (code !== 0) throw errorOf(code)
      reader.int32()
      reader.int32()
      end = reader.int64()
    })
  })
  return end === UNKNOWN ? undefined : end
}
