// Metadata v12, which tells the ids of topics (KIP-516).

import { WireReader, WireWriter } from './wire.ts'

export const METADATA = 3
export const METADATA_VERSION = 12

const NO_ID = Buffer.alloc(16)

export interface TopicMetadata {
  readonly id: string
  /** Node id of each partition's leader; -1 while there is none. */
  readonly leaders: readonly number[]
  /** Leader epoch of each partition: the controller raises it with each change of the leader. */
  readonly epochs: readonly number[]
  readonly replicas: number
}

export interface Metadata {
  readonly cluster: string
  readonly nodes: ReadonlyMap<number, { readonly host: string; readonly port: number }>
  readonly topics: ReadonlyMap<string, TopicMetadata>
}

export function encodeRequest(topics: readonly string[]): Buffer {
  const writer = new WireWriter().unsignedVarint(0).unsignedVarint(topics.length + 1)
  for (const topic of topics) writer.raw(NO_ID).compactString(topic).unsignedVarint(0)
  return writer.int8(0).int8(0).unsignedVarint(0).finish()
}

export function decodeMetadata(body: Buffer): Metadata {
  const reader = new WireReader(body)
  reader.tags()
  reader.int32()
  const nodes = new Map<number, { host: string; port: number }>()
  reader.compactArray(() => {
    nodes.set(reader.int32(), { host: reader.compactString() ?? '', port: reader.int32() })
    reader.compactString()
    reader.tags()
  })
  const cluster = reader.compactString() ?? ''
  reader.int32()
  const topics = new Map<string, TopicMetadata>()
  reader.compactArray(() => {
    const error = reader.int16()
    const name = reader.compactString() ?? ''
    const id = reader.uuid()
    reader.int8()
    const leaders: number[] = []
    const epochs: number[] = []
    let replicas = 0
    reader.compactArray(() => {
      reader.int16()
      const index = reader.int32()
      leaders[index] = reader.int32()
      epochs[index] = reader.int32()
      replicas = reader.skipInt32s()
      reader.skipInt32s()
      reader.skipInt32s()
      reader.tags()
    })
    reader.int32()
    reader.tags()
    if (error === 0) topics.set(name, { id, leaders, epochs, replicas })
  })
  return { cluster, nodes, topics }
}

/**
 * Merges an answer into what is known: a broker that is cut off from the controller tells former leaders, with their
 * lower epochs.
 */
export function newest(known: Metadata | undefined, told: Metadata): Metadata {
  if (known === undefined) return told
  const topics = new Map(told.topics)
  for (const [name, topic] of told.topics) {
    const before = known.topics.get(name)
    if (before?.id !== topic.id) continue
    const older = (epoch: number, index: number): boolean => epoch < (before.epochs[index] ?? -1)
    if (!topic.epochs.some(older)) continue
    const pick = (now: readonly number[], then: readonly number[]): number[] =>
      now.map((value, index) => (older(topic.epochs[index] as number, index) ? (then[index] as number) : value))
    const leaders = pick(topic.leaders, before.leaders)
    topics.set(name, { ...topic, leaders, epochs: pick(topic.epochs, before.epochs) })
  }
  return { ...told, topics }
}
