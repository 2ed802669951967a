// OffsetFetch v7 (KIP-447) and OffsetForLeaderEpoch v3 (KIP-320).

import type { Offset } from '../../log.ts'
import { type BrokerConnection, errorOf } from './broker.ts'
import { CONSUMER, WireReader, WireWriter } from './wire.ts'

const OFFSET_FETCH = 9

/** Version 7 is the first with `require_stable` (KIP-447). */
const OFFSET_FETCH_VERSION = 7

const NEVER_COMMITTED = -1

export interface CommittedOffset {
  readonly offset: Offset
  readonly metadata: string
}

/**
 * What the group has committed for one partition; undefined without a commit. With `stable`, the broker answers
 * UNSTABLE_OFFSET_COMMIT (KIP-447) while a transaction with a newer offset is undecided: going on from the older one
 * would count records twice.
 */
export async function fetchCommitted(
  connection: BrokerConnection,
  group: string,
  topic: string,
  partition: number,
  stable = true,
): Promise<CommittedOffset | undefined> {
  const writer = new WireWriter().unsignedVarint(0).compactString(group)
  writer.unsignedVarint(2).compactString(topic).unsignedVarint(2).int32(partition).unsignedVarint(0)
  const [found] = await fetchOffsets(connection, topic, writer, stable)
  return found
}

/** What the group has committed for any partition of `topic`, pending commits left aside. */
export function fetchAllCommitted(
  connection: BrokerConnection,
  group: string,
  topic: string,
): Promise<CommittedOffset[]> {
  const allTopics = new WireWriter().unsignedVarint(0).compactString(group).unsignedVarint(0)
  return fetchOffsets(connection, topic, allTopics, false)
}

async function fetchOffsets(
  connection: BrokerConnection,
  topic: string,
  writer: WireWriter,
  stable: boolean,
): Promise<CommittedOffset[]> {
  const request = writer
    .int8(stable ? 1 : 0)
    .unsignedVarint(0)
    .finish()
  const reader = new WireReader(await connection.send(OFFSET_FETCH, 'OffsetFetch', OFFSET_FETCH_VERSION, [request]))
  reader.tags()
  reader.int32()
  const found: CommittedOffset[] = []
  reader.compactArray(() => {
    const name = reader.compactString()
    reader.compactArray(() => {
      reader.int32()
      const offset = reader.int64()
      reader.int32()
      const metadata = reader.compactString() ?? ''
      check(reader.int16())
      reader.tags()
      if (name === topic && offset !== NEVER_COMMITTED) found.push({ offset, metadata })
    })
    reader.tags()
  })
  check(reader.int16())
  return found
}

function check(code: number): void {
  if (code !== 0) throw errorOf(code)
}

const OFFSET_FOR_LEADER_EPOCH = 23

const OFFSET_FOR_LEADER_EPOCH_VERSION = 3

const UNKNOWN = -1

/**
 * OffsetForLeaderEpoch v3 (KIP-320): where the records end that leaders up to `epoch` wrote; undefined when the leader
 * does not know. A consumer that read further than that with this epoch has read records that are lost.
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
