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

/**
 * Kafka aborts a transaction that nobody ends after this, ms. Readers wait for it until then. Longer than a commit is
 * retried.
 */
export const TRANSACTION_TIMEOUT_MS = 15_000
/**
 * Producer epochs have 16 bits. When they run out, the coordinator gives the transactional id a new, higher producer
 * id.
 */
const EPOCHS = 0x1_0000

/**
 * A partition held through its transactional id, `<group>-<partition>`: InitProducerId raises the producer epoch,
 * aborts the former holder's open transaction and fences it (KIP-98).
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
  /** Connections that the last transaction used. */
  #used: readonly BrokerConnection[] = []
  /** Deadline of the commit under way: its steps share one timeout. */
  #deadline = 0
  #over: TidemarkError | undefined
  /** Called once, when the claim can commit nothing more. */
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
   * Rejects with RetryableError when Kafka does not answer, and for what holds up this partition alone; with
   * ConfigurationError when offsets and changelog do not fit. `inGroup` tells whether the group has lately confirmed
   * this member.
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
      // Fenced: from here on the former holder can change nothing.
      const closing = closeHanging(context, partition, producer, signal)
      // The bounds are asked for at the same time. Nobody waits for the end alone: a slow leader leaves it undefined.
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

  /** One transaction (KIP-98). Resolves with the end of the changelog when the coordinator has decided to commit. */
  async #transact({ changelog, deadLetters, next, isPart = false }: Parameters<Claim['commit']>[0]): Promise<Offset> {
    const { identity, group } = this.#context
    await this.#refuseAfterOpenTransaction()
    const batches = this.#encode(withCommitHeader(changelog, next, identity, group), deadLetters)
    // 1. The coordinator learns which partitions take part: it will write a marker to each.
    await this.#addPartitions(batches)
    // 2. The records go to their leaders. Meanwhile the group's offsets are added to the transaction.
    const [changelogEnd] = await Promise.all([this.#timed(batches, isPart), this.#addOffsets()])
    // 3. The group's coordinator keeps the offset as pending. Sent only now, so a pending offset proves that every record
    //    is in the log (see `decideOutcome`).
    await this.#commitOffset(next, changelogEnd)
    // 4. The transaction's coordinator decides: everything above takes effect at once.
    await this.#coordinated((requests) => requests.endTxn({ ...this.#transaction, transactionResult: true }))
    return changelogEnd
  }

  async #addPartitions(batches: readonly PartitionBatch[]): Promise<void> {
    if (batches.length === 0) return
    const topics = [...Map.groupBy(batches, ({ topic }) => topic)].map(([topic, parts]) => ({
      topic,
      partitions: [...new Set(parts.map(({ partition }) => partition))],
    }))
    await this.#coordinated((requests) => requests.addPartitionsToTxn({ ...this.#transaction, topics }))
  }

  #addOffsets(): Promise<void> {
    const { group: groupId } = this.#context
    return this.#coordinated((requests) => requests.addOffsetsToTxn({ ...this.#transaction, groupId }))
  }

  async #commitOffset(next: Offset, changelogEnd: Offset): Promise<void> {
    const { cluster, group, identity, names } = this.#context
    // The epoch is that of the newest record read, which may stand after `next`: no later leader wrote what is before it.
    const metadata = encodePosition({ ...identity, changelogEnd, epoch: this.#context.readEpoch(this.partition) })
    const topics = [{ topic: names.telemetry, partitions: [{ partition: this.partition, offset: next, metadata }] }]
    await this.#step(
      () => cluster.coordinator(this.#lane, GROUP_COORDINATOR, group),
      ({ requests }) => requests.txnOffsetCommit({ ...this.#transaction, groupId: group, topics }),
    )
  }

  /**
   * Sends one request of the transaction, and repeats it only when its answer says so. A request whose answer was lost
   * may still arrive: if this transaction went on, the late request could commit half of the next one, or put the next
   * offset back. So the claim ends there, and the next claim fences the late request.
   */
  #step<T>(find: () => Promise<BrokerConnection>, send: (connection: BrokerConnection) => Promise<T>): Promise<T> {
    return this.#context.cluster.retry(this.#deadline - performance.now(), undefined, async () => {
      const connection = await find()
      try {
        return await send(connection)
      } catch (error) {
        // RetryableErrors are thrown by this process, before anything is sent.
        if (error instanceof RetryableError || typeOf(error) !== undefined) throw error
        throw new Error(`the answer of a broker was lost: ${String(error)}`, { cause: error })
      }
    })
  }

  /**
   * Rejects when the last transaction hangs: aborting this one would abort that one too, in one place and not in the
   * other (see `closeHanging`). A coordinator leaves transactions open only when a broker goes away, so this asks only
   * after a connection changed.
   */
  async #refuseAfterOpenTransaction(): Promise<void> {
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

  /** Produces, and measures: the next commits learn how many bytes they should hold. */
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

  /** Resolves with the changelog's end once every batch is in the log. A partition's batches go one after the other. */
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
