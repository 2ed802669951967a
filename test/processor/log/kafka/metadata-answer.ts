import { WireWriter } from '../../../../processor/log/kafka/protocol/wire.ts'

export interface ToldTopic {
  /** The byte that its id consists of. */
  readonly id: number
  readonly leaders: readonly { readonly leader: number; readonly epoch: number }[]
  /** Of each partition; default: two. */
  readonly replicas?: number
}

/** A metadata response, version 12. Node ids of the hosts are their indexes. */
export function metadataAnswer(hosts: readonly string[], topics: Readonly<Record<string, ToldTopic>> = {}): Buffer {
  const writer = new WireWriter(1024).unsignedVarint(0).int32(0)
  array(writer, hosts, (host, id) => {
    writer.int32(id).compactString(host).int32(9092).unsignedVarint(0).unsignedVarint(0)
  })
  writer.compactString('cluster').int32(0)
  array(writer, Object.entries(topics), ([name, { id, leaders, replicas = 2 }]) => {
    writer.int16(0).compactString(name).raw(Buffer.alloc(16, id)).int8(0)
    array(writer, leaders, ({ leader, epoch }, index) => {
      writer.int16(0).int32(index).int32(leader).int32(epoch)
      // One of the replicas is in sync, none offline.
      array(writer, Array(replicas).keys().toArray(), (offset) => writer.int32(leader + offset))
      array(writer, [leader], (replica) => writer.int32(replica))
      writer.unsignedVarint(1).unsignedVarint(0)
    })
    writer.int32(0).unsignedVarint(0)
  })
  return writer.unsignedVarint(0).finish()
}

function array<T>(writer: WireWriter, values: readonly T[], write: (value: T, index: number) => void): void {
  writer.unsignedVarint(values.length + 1)
  for (const [index, value] of values.entries()) write(value, index)
}
