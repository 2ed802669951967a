import { randomUUID } from 'node:crypto'
import pino from 'pino'
import { Registry } from 'prom-client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { KafkaLog } from '../../processor/log/kafka.ts'
import { encodeBatch, type Producer, sizeBound } from '../../processor/log/kafka-batch.ts'
import { Network } from '../../processor/log/kafka-broker.ts'
import { GROUP_COORDINATOR, KafkaCluster, TRANSACTION_COORDINATOR } from '../../processor/log/kafka-cluster.ts'
import { encodePosition } from '../../processor/log/kafka-offsets.ts'
import { produce } from '../../processor/log/kafka-produce.ts'
import { topicNames } from '../../processor/log/kafka-topics.ts'
import type { Claim } from '../../processor/log/log.ts'
import type { Kafka } from '../../simulators/kafka.ts'
import { aborted, read, TestMember } from '../contract/log-member.ts'
import { record, text } from '../contract/log-records.ts'
import { kafkaMissing, startKafka } from './kafka.ts'

const LANE = 'test'

/**
 * What a broker leaves behind that calls a transaction complete and has not written its markers: with the check of
 * KIP-890 off, the same can be written by hand.
 */
describe.skipIf(kafkaMissing !== undefined)('a transaction that a broker left open', { timeout: 60_000 }, () => {
  let kafka: Kafka

  beforeAll(async () => {
    kafka = await startKafka({ properties: { 'transaction.partition.verification.enable': 'false' } })
  }, 180_000)

  afterAll(async () => {
    await kafka[Symbol.asyncDispose]()
  })

  /** A log whose only partition has one commit (`a`), and the means of its former holder. */
  async function open() {
    const prefix = `hanging-${randomUUID()}`
    const logger = pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' })
    const options = { brokers: [kafka.brokers], prefix, group: prefix, partitions: 1, standbys: 0, logger }
    const log = await KafkaLog.open({ ...options, registry: new Registry() })
    await withClaim(log, (claim) => claim.commit({ changelog: [record('key', 'a')], deadLetters: [], next: 1 }))
    const names = topicNames(prefix)
    const network = new Network('test', {}, logger)
    const cluster = new KafkaCluster([kafka.brokers], Object.values(names), network, logger)
    // The markers of the commit may still be under way.
    const { producerId, producerEpoch } = await cluster.persist(10_000, undefined, async () => {
      const { requests } = await cluster.coordinator(LANE, TRANSACTION_COORDINATOR, `${prefix}-0`)
      return requests.initProducerId({ transactionalId: `${prefix}-0`, transactionTimeout: 10_000 })
    })
    const holder: Producer = { id: Number(producerId), epoch: producerEpoch }
    return { prefix, log, names, network, cluster, holder }
  }

  type World = Awaited<ReturnType<typeof open>>

  async function write({ cluster, names, holder, prefix }: World, topic: 'status' | 'dead-letters', value: string) {
    const written = record('key', value)
    const bytes = encodeBatch([written], 0, 1, sizeBound(written), holder, 0, true)
    const leader = await cluster.connection(LANE, await cluster.leader(names[topic], 0))
    const [produced] = await produce(leader, `${prefix}-0`, [{ topic: names[topic], partition: 0, bytes }])
    expect(produced?.error).toBeUndefined()
    return Number(produced?.baseOffset) + 1
  }

  /** With `pending`, in the transaction; without, as the marker of a commit leaves it. */
  async function offer({ cluster, names, holder, prefix, log }: World, next: number, end: number, pending: boolean) {
    const { requests } = await cluster.coordinator(LANE, GROUP_COORDINATOR, prefix)
    const partitions = [{ partition: 0, offset: next, metadata: encodePosition(end, log.identity) }]
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

  /** What the next claim finds, and what a reader of the changelog and of the dead letters sees after its commit. */
  async function outcome({ log, network }: World) {
    const start = await withClaim(log, async (claim) => {
      await claim.commit({ changelog: [record('key', 'next')], deadLetters: [record('key', 'next')], next: 9 })
      return claim.start
    })
    const values = []
    for (const topic of ['status', 'dead-letters'] as const) {
      const { end } = await log.bounds({ topic, index: 0 })
      values.push((await read(log, topic, 0, 0, end)).map(text).join(' '))
    }
    const again = await withClaim(log, (claim) => Promise.resolve(claim.start.input))
    await log[Symbol.asyncDispose]()
    network.close()
    return { input: start.input, status: values[0], deadLetters: values[1], again }
  }

  test('whole, in the changelog and in the offsets: is committed', async () => {
    const world = await open()
    const end = await write(world, 'status', 'b')
    await write(world, 'dead-letters', 'x')
    await offer(world, 2, end, true)
    expect(await outcome(world)).toEqual({ input: 2, status: 'a b next', deadLetters: 'x next', again: 9 })
  })

  test('only in the changelog, before any offset: is aborted', async () => {
    const world = await open()
    await write(world, 'status', 'b')
    await write(world, 'dead-letters', 'x')
    expect(await outcome(world)).toEqual({ input: 1, status: 'a next', deadLetters: 'next', again: 9 })
  })

  test('only in the changelog, while its offset is committed: is committed', async () => {
    const world = await open()
    const end = await write(world, 'status', 'b')
    await offer(world, 2, end, false)
    expect(await outcome(world)).toEqual({ input: 2, status: 'a b next', deadLetters: 'next', again: 9 })
  })

  test('only in the offsets, with nothing new in the changelog: is aborted', async () => {
    const world = await open()
    await offer(world, 2, 99, true)
    expect(await outcome(world)).toEqual({ input: 1, status: 'a next', deadLetters: 'next', again: 9 })
  })

  test('only in the offsets, while the changelog has what belongs to them: is committed', async () => {
    const world = await open()
    const { cluster, prefix, holder, names } = world
    const { requests } = await cluster.coordinator(LANE, TRANSACTION_COORDINATOR, `${prefix}-0`)
    const transaction = { transactionalId: `${prefix}-0`, producerId: holder.id, producerEpoch: holder.epoch }
    await requests.addPartitionsToTxn({ ...transaction, topics: [{ topic: names.status, partitions: [0] }] })
    const end = await write(world, 'status', 'b')
    await offer(world, 2, end, true)
    await requests.endTxn({ ...transaction, transactionResult: true })
    expect(await outcome(world)).toEqual({ input: 2, status: 'a b next', deadLetters: 'next', again: 9 })
  })

  test('only in the dead letters: is committed', async () => {
    const world = await open()
    await write(world, 'dead-letters', 'x')
    expect(await outcome(world)).toEqual({ input: 1, status: 'a next', deadLetters: 'x next', again: 9 })
  })
})

/** Joins, does `work` with the claim of partition 0, and leaves. */
async function withClaim<T>(log: KafkaLog, work: (claim: Claim) => Promise<T>): Promise<T> {
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
