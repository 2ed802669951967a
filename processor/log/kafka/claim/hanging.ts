import { RetryableError } from '../../../contract/errors.ts'
import type { Offset } from '../../log.ts'
import { GROUP_COORDINATOR, TRANSACTION_COORDINATOR } from '../cluster.ts'
import { typeOf } from '../protocol/errors.ts'
import { type CommittedOffset, fetchCommitted } from '../protocol/offsets.ts'
import type { Producer } from '../protocol/record-batch.ts'
import type { Ends } from './bounds.ts'
import { CLAIM_TIMEOUT_MS, type ClaimContext, laneOf, transactionalId } from './claim-context.ts'
import { decodePosition, hasRecordsFrom } from './position.ts'

/** Brokers before KAFKA-17507 show a complete transaction's offsets as pending for a moment, ms. */
const OFFSETS_SETTLE_MS = 1000

/** Where a transaction is open although its coordinator calls it complete (a hanging transaction, KIP-664). */
export interface OpenTransaction {
  readonly status: boolean
  readonly deadLetters: boolean
  readonly offsets: boolean
}

export interface TransactionFacts extends OpenTransaction {
  /** The changelog's last stable offset: all before it is decided. */
  readonly stable: Offset
  /** The changelog's end in the committed position; undefined without one. */
  readonly committedEnd: Offset | undefined
  /** The changelog holds committed records after that end. */
  readonly beyond: boolean
}

/**
 * What the coordinator has decided, or may still decide, about a transaction that is open in some places and closed in
 * others. Pure. A claim sends its offset only after all records are in the log, and a coordinator decides once.
 */
export function decideOutcome(facts: TransactionFacts): 'commit' | 'abort' {
  const { status, offsets, stable, committedEnd, beyond } = facts
  // The transaction is whole, and nobody can have seen another decision.
  if (status && offsets) return 'commit'
  if (status) return committedEnd !== undefined && committedEnd > stable ? 'commit' : 'abort'
  if (offsets) return beyond ? 'commit' : 'abort'
  // A dead letter written twice is better than one lost.
  return 'commit'
}

/** What the log shows of a partition while no transaction is under way. */
export interface PartitionState extends OpenTransaction {
  readonly stable: Offset
  /** Undefined without a committed offset, and while it is pending. */
  readonly committed: CommittedOffset | undefined
}

/**
 * Only meaningful while the claim has no transaction under way: nobody else writes the changelog or commits the
 * offset.
 */
export async function inspect(context: ClaimContext, partition: number, signal?: AbortSignal): Promise<PartitionState> {
  const [[status, deadLetters], committed] = await Promise.all([
    context.ends(['status', 'dead-letters'], partition) as Promise<[Ends, Ends]>,
    committedOffset(context, partition, signal),
  ])
  return {
    status: status.stable < status.end,
    deadLetters: deadLetters.stable < deadLetters.end,
    offsets: committed === 'pending',
    stable: status.stable,
    committed: committed === 'pending' ? undefined : committed,
  }
}

export function isHanging({ status, deadLetters, offsets }: OpenTransaction): boolean {
  return status || deadLetters || offsets
}

function committedOffset(
  context: ClaimContext,
  partition: number,
  signal?: AbortSignal,
): Promise<CommittedOffset | 'pending' | undefined> {
  const { cluster, group, names } = context
  const since = performance.now()
  return cluster.retry(CLAIM_TIMEOUT_MS, signal, async () => {
    const connection = await cluster.coordinator(laneOf(partition), GROUP_COORDINATOR, group)
    try {
      return await fetchCommitted(connection, group, names.telemetry, partition)
    } catch (error) {
      if (typeOf(error) !== 'UNSTABLE_OFFSET_COMMIT' || performance.now() - since < OFFSETS_SETTLE_MS) throw error
      return 'pending'
    }
  })
}

/**
 * Closes a hanging transaction: one whose markers a broker never wrote although its coordinator calls it complete
 * (KIP-664). Left open, it would hide all later records from every reader, and the offset from every claim. `producer`
 * has fenced the former holder and has the same producer id, so the markers of an empty transaction of its own close
 * the open one. Resolves with the state afterwards.
 */
export async function closeHanging(
  context: ClaimContext,
  partition: number,
  producer: Producer,
  signal: AbortSignal,
): Promise<PartitionState> {
  const found = await inspect(context, partition, signal)
  if (!isHanging(found)) return found
  const { status, deadLetters, offsets } = found
  const decision = decideOutcome({ ...found, ...(await evidence(context, partition, signal)) })
  const open = { status, deadLetters, offsets }
  context.logger.warn({ partition, ...open, decision }, 'a broker left a transaction open; it is closed now')
  await closeEmpty(context, partition, producer, open, decision, signal)
  return context.cluster.retry(CLAIM_TIMEOUT_MS, signal, async () => {
    const left = await inspect(context, partition, signal)
    // The topic of dead letters has other writers, whose transactions may be open.
    if (!left.status && !left.offsets) return left
    throw new RetryableError('LOG_UNAVAILABLE', `partition ${partition}: a transaction is still open`)
  })
}

async function evidence(
  context: ClaimContext,
  partition: number,
  signal: AbortSignal,
): Promise<Pick<TransactionFacts, 'committedEnd' | 'beyond'>> {
  const { cluster, group, names } = context
  const committed = await cluster.retry(CLAIM_TIMEOUT_MS, signal, async () => {
    const connection = await cluster.coordinator(laneOf(partition), GROUP_COORDINATOR, group)
    return fetchCommitted(connection, group, names.telemetry, partition, false)
  })
  const committedEnd = committed === undefined ? undefined : decodePosition(committed.metadata)?.changelogEnd
  return { committedEnd, beyond: await hasRecordsFrom(context, partition, committedEnd ?? 0, signal) }
}

async function closeEmpty(
  context: ClaimContext,
  partition: number,
  { id, epoch }: Producer,
  { status, deadLetters, offsets }: OpenTransaction,
  decision: 'commit' | 'abort',
  signal: AbortSignal,
): Promise<void> {
  const { cluster, group, names } = context
  const transaction = { transactionalId: transactionalId(group, partition), producerId: id, producerEpoch: epoch }
  const topics: { topic: string; partitions: number[] }[] = []
  if (status) topics.push({ topic: names.status, partitions: [partition] })
  if (deadLetters) topics.push({ topic: names['dead-letters'], partitions: [partition] })
  // An empty transaction: each step may be repeated.
  await cluster.retry(CLAIM_TIMEOUT_MS, signal, async () => {
    const lane = laneOf(partition)
    const { requests } = await cluster.coordinator(lane, TRANSACTION_COORDINATOR, transaction.transactionalId)
    if (topics.length > 0) await requests.addPartitionsToTxn({ ...transaction, topics })
    if (offsets) await requests.addOffsetsToTxn({ ...transaction, groupId: group })
    await requests.endTxn({ ...transaction, transactionResult: decision === 'commit' })
  })
}
