import { randomUUID } from 'node:crypto'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, expect } from 'vitest'
import { encodePosition } from '../../processor/log/kafka/claim/position.ts'
import { GROUP_COORDINATOR, KafkaCluster, TRANSACTION_COORDINATOR } from '../../processor/log/kafka/cluster.ts'
import { KafkaLog } from '../../processor/log/kafka/kafka-log.ts'
import { Network } from '../../processor/log/kafka/protocol/broker.ts'
import { produce } from '../../processor/log/kafka/protocol/produce.ts'
import { encodeBatch, type Producer, sizeBound } from '../../processor/log/kafka/protocol/record-batch.ts'
import { topicNames } from '../../processor/log/kafka/topics.ts'
import type { Claim, Topic } from '../../processor/log/log.ts'
import { aborted } from '../../processor/runtime/pause.ts'
import type { Kafka } from '../../simulators/kafka/kafka.ts'
import { TestMember } from '../contract/log-member.ts'
import { numbered, record } from '../contract/log-records.ts'
import { startKafka } from './kafka.ts'

export const LANE = 'test'

/** Kafka for the tests of a suite; its check of KIP-890 is off, so that what brokers leave behind can be written by hand. */
export function kafkaByHand(): () => Kafka {
  let kafka: Kafka
  beforeAll(async () => {
    kafka = await startKafka({ properties: { 'transaction.partition.verification.enable': 'false' } })
  }, 180_000)
  afterAll(async () => {
    await kafka[Symbol.asyncDispose]()
  })
  return () => kafka
}

/** A log whose only partition has `given` records and one commit (`a`), and the means of its former holder. */
export async function openByHand(kafka: Kafka, given = 0) {
  const prefix = `hanging-${randomUUID()}`
  const logger = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' })
  const options = { brokers: [kafka.brokers], prefix, group: prefix, partitions: 1, standbys: 0, logger }
  const log = await KafkaLog.open({ ...options, registry: new Registry() })
  await log.append('telemetry', numbered(0, given))
  await withClaim(log, (claim) => claim.commit({ changelog: [record('key', 'a')], deadLetters: [], next: 1 }))
  const names = topicNames(prefix)
  const network = new Network('test', {}, logger)
  const cluster = new KafkaCluster([kafka.brokers], Object.values(names), network, logger)
  return { prefix, log, names, network, cluster, holder: await holderOf(cluster, prefix) }
}

/** The means of whoever holds the partition from now on. */
export async function holderOf(cluster: KafkaCluster, prefix: string): Promise<Producer> {
  // The markers of the last commit may still be under way.
  const { producerId, producerEpoch } = await cluster.retry(10_000, undefined, async () => {
    const { requests } = await cluster.coordinator(LANE, TRANSACTION_COORDINATOR, `${prefix}-0`)
    return requests.initProducerId({ transactionalId: `${prefix}-0`, transactionTimeout: 10_000 })
  })
  return { id: Number(producerId), epoch: producerEpoch }
}

export type World = Awaited<ReturnType<typeof openByHand>>

export async function write(
  { cluster, names, holder, prefix }: World,
  topic: 'status' | 'dead-letters',
  value: string,
) {
  const written = record('key', value)
  const bytes = encodeBatch([written], 0, 1, sizeBound(written), holder, 0, true)
  const leader = await cluster.connection(LANE, await cluster.leader(names[topic], 0))
  const [produced] = await produce(leader, `${prefix}-0`, [{ topic: names[topic], partition: 0, bytes }])
  expect(produced?.error).toBeUndefined()
  return Number(produced?.baseOffset) + 1
}

/** With `pending`, in the transaction; without, as the marker of a commit leaves it. */
export async function offer(
  { cluster, names, holder, prefix, log }: World,
  next: number,
  end: number,
  pending: boolean,
) {
  const { requests } = await cluster.coordinator(LANE, GROUP_COORDINATOR, prefix)
  const position = { ...log.identity, changelogEnd: end, epoch: undefined }
  const partitions = [{ partition: 0, offset: next, metadata: encodePosition(position) }]
  const transaction = { transactionalId: `${prefix}-0`, producerId: holder.id, producerEpoch: holder.epoch }
  await requests.txnOffsetCommit({
    ...transaction,
    groupId: prefix,
    topics: [{ topic: names.telemetry, partitions }],
  })
  if (pending) return
  const coordinator = await cluster.coordinator(LANE, TRANSACTION_COORDINATOR, `${prefix}-0`)
  await coordinator.requests.addOffsetsToTxn({ ...transaction, groupId: prefix })
  await coordinator.requests.endTxn({ ...transaction, transactionResult: true })
}

/** Joins, does `work` with the claim of partition 0, and leaves. */
export async function withClaim<T>(log: KafkaLog, work: (claim: Claim) => Promise<T>): Promise<T> {
  const done = Promise.withResolvers<T>()
  const member = new TestMember('a', {
    async active(claim, signal) {
      await work(claim).then(done.resolve, done.reject)
      await aborted(signal)
    },
  }).join(log)
  try {
    return await done.promise
  } finally {
    await member.leave()
  }
}

/** A transaction on partition 0 of a topic, as any producer may have it there. */
export async function beginTransaction({ cluster, names, prefix }: World, topic: Topic, name: string) {
  const transactionalId = `${prefix}-${name}`
  const coordinator = () => cluster.coordinator(LANE, TRANSACTION_COORDINATOR, transactionalId)
  const producer = await cluster.retry(10_000, undefined, async () => {
    const { requests } = await coordinator()
    return requests.initProducerId({ transactionalId, transactionTimeout: 10_000 })
  })
  const { producerEpoch } = producer
  const producerId = Number(producer.producerId)
  const topics = [{ topic: names[topic], partitions: [0] }]
  await (await coordinator()).requests.addPartitionsToTxn({ transactionalId, producerId, producerEpoch, topics })
  let sequence = 0
  return {
    async write(value: string): Promise<void> {
      const written = record('key', value)
      const holder = { id: producerId, epoch: producerEpoch }
      const bytes = encodeBatch([written], 0, 1, sizeBound(written), holder, sequence++, true)
      const leader = await cluster.connection(LANE, await cluster.leader(names[topic], 0))
      const [produced] = await produce(leader, transactionalId, [{ topic: names[topic], partition: 0, bytes }])
      expect(produced?.error).toBeUndefined()
    },
    async abort(): Promise<void> {
      const { requests } = await coordinator()
      await requests.endTxn({ transactionalId, producerId, producerEpoch, transactionResult: false })
      // Refused until its marker is written.
      await cluster.retry(10_000, undefined, async () => {
        await requests.initProducerId({ transactionalId, transactionTimeout: 10_000 })
      })
    },
  }
}
