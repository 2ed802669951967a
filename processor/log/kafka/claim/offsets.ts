import type { LogIdentity, Offset } from '../../log.ts'
import { type BrokerConnection, errorOf } from '../protocol/broker.ts'
import { WireReader, WireWriter } from '../protocol/wire.ts'

const OFFSET_FETCH = 9
/** The first that knows `require stable`. */
const OFFSET_FETCH_VERSION = 7
const NEVER_COMMITTED = -1

export interface CommittedOffset {
  readonly offset: Offset
  readonly metadata: string
}

/**
 * What the group has committed for one partition; undefined for nothing. With `stable`, an offset whose transaction is
 * not decided yet is no answer, but the error UNSTABLE_OFFSET_COMMIT (KIP-447): the one before it would have records
 * counted twice.
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

/** What the group has committed for partitions of `topic`, as far as that is decided. */
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

/** What travels with a committed offset. */
export interface CommittedPosition extends Pick<LogIdentity, 'telemetry' | 'status'> {
  readonly changelogEnd: Offset
  /** Of the leader that the last records before the offset were written by; undefined when they were not read. */
  readonly epoch: number | undefined
  /** Of either topic; undefined in what versions before this wrote. */
  readonly partitions: number | undefined
}

export function encodePosition({ changelogEnd, telemetry, status, epoch, partitions }: CommittedPosition): string {
  return `${changelogEnd} ${telemetry} ${status} ${epoch ?? ''} ${partitions ?? ''}`.trimEnd()
}

/** Undefined for what somebody else has written. */
export function decodePosition(metadata: string): CommittedPosition | undefined {
  const [end = '', telemetry = '', status = '', epoch = '', partitions = ''] = metadata.split(' ')
  if (!/^\d{1,15}$/.test(end) || telemetry === '' || status === '') return undefined
  return {
    changelogEnd: Number(end),
    telemetry,
    status,
    epoch: smallNumber(epoch),
    partitions: smallNumber(partitions),
  }
}

function smallNumber(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) ? Number(text) : undefined
}
