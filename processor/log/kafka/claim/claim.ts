import { FencedError, RetryableError, type TidemarkError } from '../../../contract/errors.ts'
import { partitionOf } from '../../../contract/partition.ts'
import { MAX_RECORD_BYTES } from '../../../contract/record.ts'
import type { Claim, NewRecord, Offset } from '../../log.ts'
import { GROUP_COORDINATOR, TRANSACTION_COORDINATOR } from '../cluster.ts'
import type { BrokerConnection, BrokerRequests } from '../protocol/broker.ts'
import { asTidemark, isFencing, typeOf } from '../protocol/errors.ts'
import { type KafkaWindow, type PartitionBatch, produce } from '../protocol/produce.ts'
import {
  COUNT_AT,
  encodeBatch,
  MAX_BATCH_BYTES,
  nextSequence,
  type Producer,
  sizeBound,
  tooLarge,
} from '../protocol/record-batch.ts'
import { CLAIM_TIMEOUT_MS, type ClaimContext, laneOf, transactionalId } from './claim-context.ts'
import { closeHanging, inspect, isHanging } from './hanging.ts'
import { encodePosition, withCommitHeader } from './position.ts'
import { startOf } from './start.ts'

/** A transaction that nobody ends is aborted after this, so that it holds up its readers no longer: not while it is tried. */
export const TRANSACTION_TIMEOUT_MS = 15_000
/** Producer epochs are 16 bits; a producer id that ran out of them is followed by a higher one. */
const EPOCHS = 0x1_0000

/**
 * A partition held through its transactional id, `<group>-<partition>`: taking it ends the transaction of whoever held
 * it before and fences him (KIP-98).
 */
export class KafkaClaim implements Claim {
  readonly partition: number
  readonly epoch: number
  readonly start: { readonly input: Offset; readonly changelogEnd: Offset }
  readonly inputEnd: Offset | undefined
  readonly #context: ClaimContext
  readonly #window: KafkaWindow
  readonly #producer: Producer
  readonly #lane: string
  readonly #inGroup: () => boolean
  readonly #sequences = new Map<string, number>()
  #changelogEnd: Offset
  /** Those that the last transaction went to. */
  #used: readonly BrokerConnection[] = []
  /** Of the commit under way: all its steps share one patience. */
  #deadline = 0
  #over: TidemarkError | undefined
  /** Called once, when the claim can commit no more. */
  onOver: () => void = () => {}

  private constructor(
    context: ClaimContext,
    partition: number,
    producer: Producer,
    start: KafkaClaim['start'],
    inputEnd: Offset | undefined,
    inGroup: () => boolean,
  ) {
    this.#context = context
    this.#window = context.windows.of(partition)
    this.#inGroup = inGroup
    this.partition = partition
    this.#producer = producer
    this.epoch = producer.id * EPOCHS + producer.epoch
    this.#lane = laneOf(partition)
    this.start = start
    this.inputEnd = inputEnd
    this.#changelogEnd = start.changelogEnd
  }

  /**
   * `inGroup`: the group has said of late that the member is in it. Throws RetryableError when Kafka does not answer, and
   * for what holds up this partition alone; ConfigurationError when offsets and changelog do not fit.
   */
  static async take(
    context: ClaimContext,
    partition: number,
    inGroup: () => boolean,
    signal: AbortSignal,
  ): Promise<KafkaClaim> {
    const { cluster, group } = context
    const lane = laneOf(partition)
    const id = transactionalId(group, partition)
    try {
      const producer = await cluster.retry(CLAIM_TIMEOUT_MS, signal, async () => {
        const { requests } = await cluster.coordinator(lane, TRANSACTION_COORDINATOR, id)
        const request = { transactionalId: id, transactionTimeout: TRANSACTION_TIMEOUT_MS }
        const { producerId, producerEpoch } = await requests.initProducerId(request)
        return { id: Number(producerId), epoch: producerEpoch }
      })
      // After the fence: the former holder can change nothing more.
      const closing = closeHanging(context, partition, producer, signal)
      // Asked for beside it, and awaited when it is done.
      const kept = context.bounds({ topic: 'telemetry', index: partition })
      let inputEnd: Offset | undefined
      const noting = async () => (inputEnd = (await kept).end)
      noting().catch(() => {})
      const state = await closing
      const start = await startOf(context, partition, state, kept, signal)
      return new KafkaClaim(context, partition, producer, start, inputEnd, inGroup)
    } catch (error) {
      throw asTidemark(error, `partition ${partition} cannot be claimed`)
    }
  }

  get over(): boolean {
    return this.#over !== undefined
  }

  get held(): boolean {
    return !this.over && this.#inGroup()
  }

  get commitBytes(): number {
    return this.#window.bytes
  }

  async commit(work: Parameters<Claim['commit']>[0]): Promise<{ changelogEnd: Offset }> {
    if (this.#over !== undefined) throw this.#over
    this.#deadline = performance.now() + CLAIM_TIMEOUT_MS
    try {
      this.#changelogEnd = await this.#transact(work)
    } catch (error) {
      this.#over = this.#judge(error)
      this.onOver()
      throw this.#over
    }
    return { changelogEnd: this.#changelogEnd }
  }

  async #transact(work: Parameters<Claim['commit']>[0]): Promise<Offset> {
    const { changelog, deadLetters, next, isPart = false } = work
    const { cluster, group, identity, names } = this.#context
    await this.#undisturbed()
    const batches = this.#encode(withCommitHeader(changelog, next, identity, group), deadLetters)
    const topics = [...Map.groupBy(batches, ({ topic }) => topic)].map(([topic, parts]) => ({
      topic,
      partitions: [...new Set(parts.map(({ partition }) => partition))],
    }))
    if (topics.length > 0) {
      await this.#coordinated((requests) => requests.addPartitionsToTxn({ ...this.#transaction, topics }))
    }
    const [end] = await Promise.all([
      this.#timed(batches, isPart),
      this.#coordinated((requests) => requests.addOffsetsToTxn({ ...this.#transaction, groupId: group })),
    ])
    // Of what was read last, which may stand after `next`: what stands before it was written by no later leader.
    const epoch = this.#context.readEpoch(this.partition)
    const metadata = encodePosition({ ...identity, changelogEnd: end, epoch })
    const offset = { partition: this.partition, offset: next, metadata }
    const inputs = [{ topic: names.telemetry, partitions: [offset] }]
    await this.#step(
      () => cluster.coordinator(this.#lane, GROUP_COORDINATOR, group),
      ({ requests }) => requests.txnOffsetCommit({ ...this.#transaction, groupId: group, topics: inputs }),
    )
    await this.#coordinated((requests) => requests.endTxn({ ...this.#transaction, transactionResult: true }))
    return end
  }

  /**
   * Sends a request of the transaction to the broker that `find` finds, and again only after an answer that calls for it.
   * One whose answer is lost may still be on its way: had this transaction gone on without it, it could commit half of
   * the next one, or put the next one's offset back. So the claim ends there, and the next one fences what is on its way.
   */
  #step<T>(find: () => Promise<BrokerConnection>, send: (connection: BrokerConnection) => Promise<T>): Promise<T> {
    return this.#context.cluster.retry(this.#deadline - performance.now(), undefined, async () => {
      const connection = await find()
      try {
        return await send(connection)
      } catch (error) {
        // Ours are thrown before anything is sent.
        if (error instanceof RetryableError || typeOf(error) !== undefined) throw error
        throw new Error(`the answer of a broker was lost: ${String(error)}`, { cause: error })
      }
    })
  }

  /**
   * Rejects when the last transaction was left open (see `settle`): if this one were aborted, that one would be too, in
   * one place and not in the other. Asked only after a broker went away: it is what makes a coordinator leave it open.
   */
  async #undisturbed(): Promise<void> {
    const { cluster, group, names } = this.#context
    const used = await cluster.retry(this.#deadline - performance.now(), undefined, async () =>
      Promise.all([
        cluster.connection(this.#lane, await cluster.leader(names.status, this.partition)),
        cluster.coordinator(this.#lane, GROUP_COORDINATOR, group),
      ]),
    )
    if (used.every((connection, i) => connection === this.#used[i])) return
    if (this.#used.length > 0 && isHanging(await inspect(this.#context, this.partition))) {
      throw new Error('a broker that went away left the last transaction open')
    }
    this.#used = used
  }

  get #transaction(): { transactionalId: string; producerId: number; producerEpoch: number } {
    const { id, epoch } = this.#producer
    return {
      transactionalId: transactionalId(this.#context.group, this.partition),
      producerId: id,
      producerEpoch: epoch,
    }
  }

  async #coordinated(request: (requests: BrokerRequests) => Promise<unknown>): Promise<void> {
    const { cluster } = this.#context
    await this.#step(
      () => cluster.coordinator(this.#lane, TRANSACTION_COORDINATOR, this.#transaction.transactionalId),
      ({ requests }) => request(requests),
    )
  }

  #encode(changelog: readonly NewRecord[], deadLetters: readonly NewRecord[]): PartitionBatch[] {
    const { names, identity } = this.#context
    const batches: PartitionBatch[] = []
    this.#cut(names.status, this.partition, changelog, batches)
    const of = ({ key }: NewRecord): number => (key === null ? this.partition : partitionOf(key, identity.partitions))
    for (const [partition, records] of Map.groupBy(deadLetters, of)) {
      this.#cut(names['dead-letters'], partition, records, batches)
    }
    return batches
  }

  #cut(topic: string, partition: number, records: readonly NewRecord[], batches: PartitionBatch[]): void {
    for (let from = 0, to = 0; to < records.length; from = to) {
      let size = 0
      while (to < records.length) {
        const bound = sizeBound(records[to] as NewRecord)
        if (bound > MAX_RECORD_BYTES) throw tooLarge(bound)
        if (to > from && size + bound > MAX_BATCH_BYTES) break
        size += bound
        to++
      }
      const name = `${topic} ${partition}`
      const sequence = this.#sequences.get(name) ?? 0
      this.#sequences.set(name, nextSequence(sequence, to - from))
      const bytes = encodeBatch(records, from, to, size, this.#producer, sequence, true)
      batches.push({ topic, partition, bytes })
    }
  }

  /** As `#produce`; the next commits learn from it how much they should hold. */
  async #timed(batches: readonly PartitionBatch[], isPart: boolean): Promise<Offset> {
    const bytes = batches.reduce((sum, batch) => sum + batch.bytes.length, 0)
    const began = performance.now()
    const took = (isFull: boolean): void => this.#window.took(bytes, performance.now() - began, isFull)
    try {
      const end = await this.#produce(batches)
      if (bytes > 0) took(isPart)
      return end
    } catch (error) {
      took(false)
      throw error
    }
  }

  /** Resolves with the end of the changelog once every batch is in the log. */
  async #produce(batches: readonly PartitionBatch[]): Promise<Offset> {
    const { names } = this.#context
    let end = this.#changelogEnd
    const perPartition = Map.groupBy(batches, ({ topic, partition }) => `${topic} ${partition}`)
    const all = [...perPartition.values()].map(async (inOrder) => {
      for (const batch of inOrder) {
        const base = await this.#produceOne(batch)
        if (batch.topic === names.status) end = base + recordsOf(batch)
      }
    })
    await Promise.all(all)
    return end
  }

  #produceOne(batch: PartitionBatch): Promise<Offset> {
    const { cluster } = this.#context
    return this.#step(
      async () => cluster.connection(this.#lane, await cluster.leader(batch.topic, batch.partition)),
      async (connection) => {
        const [produced] = await produce(connection, this.#transaction.transactionalId, [batch])
        if (produced === undefined) throw new Error(`${batch.topic}: an empty answer`)
        if (produced.error !== undefined) throw produced.error
        return produced.baseOffset
      },
    )
  }

  #judge(error: unknown): TidemarkError {
    if (isFencing(error)) return new FencedError(this.partition, this.epoch)
    this.#context.logger.warn({ err: error, partition: this.partition }, 'a commit failed; the claim is over')
    return asTidemark(error, `partition ${this.partition}: the commit is not known to have been made`)
  }
}

function recordsOf({ bytes }: PartitionBatch): number {
  return bytes.readInt32BE(COUNT_AT)
}
