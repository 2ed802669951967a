import type { OwnerMap } from '../contract/query.ts'
import type { Headers, LogRecord, NewRecord, Offset, Position } from '../contract/record.ts'

export type { Headers, LogRecord, NewRecord, Offset, Position }

/** `telemetry` and `status` have the same partitions; `status` is the changelog: compacted, key = device id. */
export type Topic = 'telemetry' | 'status' | 'dead-letters'

export interface Partition {
  readonly topic: Topic
  readonly index: number
}

/**
 * Records in offset order. Reading goes on at `next` (compaction leaves gaps); `end` is the partition's end when it
 * was read.
 */
export interface Batch {
  readonly records: readonly LogRecord[]
  readonly next: Offset
  readonly end: Offset
}

/** Bounds of one batch. A single record larger than `maxBytes` is still given, alone. */
export interface BatchLimits {
  readonly maxRecords: number
  readonly maxBytes: number
}

/**
 * The log that a store belongs to: a store of another identity must be wiped. A topic that is created anew has a new
 * id.
 */
export interface LogIdentity {
  readonly cluster: string
  readonly telemetry: string
  readonly status: string
  readonly partitions: number
}

/** The log port: a partitioned, durable log with a group of members that own its partitions. */
export interface Log extends AsyncDisposable {
  readonly identity: LogIdentity

  /**
   * The changelog keeps a tombstone for at least this long, ms: a copy that was away for longer may have missed some.
   */
  readonly deleteRetentionMs: number

  /** How long a partition with few records gathers more before it commits, ms: longer where a commit costs more. */
  readonly maxGatherMs: number

  /** Why appends fail now (a full disk, no broker); undefined while they work. */
  readonly fault: Error | undefined

  /** Why appends to one partition of telemetry fail now: the fault of the log, or the partition's own. */
  faultAt(partition: number): Error | undefined

  /**
   * Defined while so much of telemetry waits to be processed that no more should be let in; resolves when less does. Only
   * a log that shares its process with the processors knows.
   */
  readonly relief?: Promise<void> | undefined

  /**
   * Resolves when every record is durable: it survives kill -9 of this process (embedded) or the loss of a broker (Kafka,
   * acks=all). Records of one key keep their order, within a call and over calls made one after the other, awaited or not.
   * Rejects with RetryableError when that is not known; some of the records may be in the log then.
   * A record goes to `partitionOf(key)`; one without a key (dead letters only) to any partition.
   */
  append(topic: 'telemetry' | 'dead-letters', records: readonly NewRecord[]): Promise<void>

  /** Appends one record of telemetry, as `append` does, and resolves with where it is. */
  write(record: NewRecord): Promise<Position>

  /**
   * Committed records from offset `from` on, in order; waits at the end for more, and ends when `signal` aborts.
   * One batch is under way at a time: asking for the next says that the last was dealt with.
   * Rejects with OffsetOutOfRangeError when `from` is below what retention left, or past the end.
   */
  follow(partition: Partition, from: Offset, limits: BatchLimits, signal: AbortSignal): AsyncIterable<Batch>

  /**
   * Offset of the oldest record, and the end. When `signal` aborts, failing brokers are not asked again: it rejects
   * with their error.
   */
  bounds(partition: Partition, signal?: AbortSignal): Promise<{ start: Offset; end: Offset }>

  /**
   * Takes part in the group until `signal` aborts; then every role of the member stops and is awaited, and its
   * partitions are handed over. Rejects when a role rejected, or the group is beyond use. Some errors end only the
   * role, and the partition is claimed again: FencedError; RetryableError of an owner whose claim is over; on Kafka
   * also OffsetOutOfRangeError of an owner, because retention there does not wait for consumers. The embedded log
   * keeps everything that is not processed: if it is gone, a person must look at its folder, and the member ends.
   */
  join(member: Member, signal: AbortSignal): Promise<void>

  /** The owner and standbys of each partition, as any process can learn them from the group. */
  owners(): Promise<OwnerMap>
}

/** A process that holds partitions. The log calls `active` and `standby`; each promise lasts as long as the role. */
export interface Member {
  /** Stable over restarts: it names the store folder, and the assigner gives back what is warm here. */
  readonly instance: string
  /** Where readers reach this member: host:port, or any unique text in one process. */
  readonly endpoint: string

  /**
   * Changelog position of each warm copy held here: partitions go where least must be restored. It is 0 for a copy
   * that was away so long that it may lack tombstones, and for a standby whose store cannot be written.
   */
  positions(): ReadonlyMap<number, Offset>

  /**
   * Its stores cannot be written, or could not until lately: the group gives it nothing while another member can take
   * it. A group in one process does not ask: all its members are on one volume.
   */
  readonly unfit?: boolean

  /**
   * Owns `claim.partition` until `signal` aborts, and resolves when no more effect follows. The claim has been taken:
   * the previous holder is fenced. A role on the same partition that ran before has ended.
   */
  active(claim: Claim, signal: AbortSignal): Promise<void>

  /** Keeps a warm copy of the partition until `signal` aborts. */
  standby(partition: number, signal: AbortSignal, copying: Copying): Promise<void>
}

/** How a standby is to be kept, and how it tells its progress. */
export interface Copying {
  /** The member becomes the owner once this copy has caught up: it is restored before others. */
  readonly heir: boolean

  /** False when the group has not lately confirmed this member. */
  readonly held: boolean

  /**
   * Called with true when the copy has caught up with the changelog, and with false when it no longer follows, for
   * example because its store cannot be written.
   */
  whole(is: boolean): void
}

/** A partition held at an epoch: the only way to move it forward. */
export interface Claim {
  readonly partition: number
  /** Grows with every claim of the partition; only the newest claim can commit. */
  readonly epoch: number
  /** The committed input offset, and the changelog end that was committed with it. */
  readonly start: { readonly input: Offset; readonly changelogEnd: Offset }
  /** The end of telemetry when the claim was taken; undefined if the log did not tell in time. */
  readonly inputEnd: Offset | undefined
  /** False when another member may hold the partition by now: the group has not lately confirmed this one. */
  readonly held: boolean
  /** Roughly how many bytes a commit should hold so that the log takes it in good time; undefined: any. It changes. */
  readonly commitBytes?: number

  /**
   * Atomic: the changelog records, the dead letters and the input offset `next` all take effect, or none does. Dead
   * letters with a key go to `partitionOf(key)`; that is another partition only for telemetry that a foreign program
   * put here. Resolves with the end of the changelog partition once the commit is durable. A claim's commits are made
   * one at a time. Rejects with FencedError when a newer epoch exists, with RetryableError when the outcome is
   * unknown: the claim is over then, and the next claim learns the outcome from `start`. `isPart`: the batch has more
   * records.
   */
  commit(work: {
    readonly changelog: readonly NewRecord[]
    readonly deadLetters: readonly NewRecord[]
    readonly next: Offset
    readonly isPart?: boolean
  }): Promise<{ readonly changelogEnd: Offset }>
}

/**
 * Committed records from `from` until `to`, which must not be past the end, so it never waits for records. The last
 * batch may go further. Rejects as `follow` does, and with the reason of `signal` when that aborts.
 */
export async function* readRange(
  log: Pick<Log, 'follow'>,
  partition: Partition,
  from: Offset,
  to: Offset,
  limits: BatchLimits,
  signal: AbortSignal,
): AsyncGenerator<Batch> {
  if (from >= to) return
  for await (const batch of log.follow(partition, from, limits, signal)) {
    yield batch
    if (batch.next >= to) return
  }
  signal.throwIfAborted()
}
