import type { OwnerMap } from '../contract/query.ts'
import type { Headers, LogRecord, NewRecord, Offset, Position } from '../contract/record.ts'

export type { Headers, LogRecord, NewRecord, Offset, Position }

/** `telemetry` and `status` have the same partitions; `status` is the changelog: compacted, key = device id. */
export type Topic = 'telemetry' | 'status' | 'dead-letters'

export interface Partition {
  readonly topic: Topic
  readonly index: number
}

/** Records in offset order. `next` is where to read on (compaction leaves gaps); `end` the partition's end when it was read. */
export interface Batch {
  readonly records: readonly LogRecord[]
  readonly next: Offset
  readonly end: Offset
}

/** Bounds of one batch. A single record over `maxBytes` is still given, alone. */
export interface BatchLimits {
  readonly maxRecords: number
  readonly maxBytes: number
}

/** What a store belongs to. A store of another identity must be wiped. Ids change when a topic is created anew. */
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
   * How long the changelog keeps a tombstone at least, ms: a copy that was away for longer may have missed some.
   */
  readonly deleteRetentionMs: number

  /** For how long, ms, a partition may gather few records before it commits them: as commits cost the log much, or little. */
  readonly maxGatherMs: number

  /** Why appends fail now (a full disk, no broker); undefined while they work. */
  readonly fault: Error | undefined

  /** Why appends to one partition of telemetry fail now: the fault of the log, or the partition's own. */
  faultAt(partition: number): Error | undefined

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
   * Offset of the oldest record kept, and the end. When `signal` aborts, brokers that fail at it are not asked again: it
   * rejects with what they failed at.
   */
  bounds(partition: Partition, signal?: AbortSignal): Promise<{ start: Offset; end: Offset }>

  /**
   * Takes part in the group until `signal` aborts; then every role of the member is stopped, awaited, and handed over.
   * Rejects when a role of the member rejected, or the group is beyond use. But these end the role alone, and the partition
   * is claimed anew where it is to be: FencedError; RetryableError of an owner whose claim is over; on Kafka, where retention
   * goes by no position, OffsetOutOfRangeError of an owner. The embedded log keeps what is not processed: where that is not
   * there a person must see to its folder, and the member ends.
   */
  join(member: Member, signal: AbortSignal): Promise<void>

  /** Who holds each partition now, as every process can learn it from the group alone. */
  owners(): Promise<OwnerMap>
}

/** A process that holds partitions. The log calls `active` and `standby`; their promises are the roles' lives. */
export interface Member {
  /** Stable over restarts: names the store folder, and lets the assigner give back what is warm here. */
  readonly instance: string
  /** Where readers reach this member: host:port, or any unique text in one process. */
  readonly endpoint: string

  /**
   * Changelog position of each warm copy held here, so that partitions go where least is to restore; 0 of one that was away
   * for so long that it can be built upon only if it lacks nothing, and of a standby whose store cannot be written.
   */
  positions(): ReadonlyMap<number, Offset>

  /**
   * Its stores have not been written for long, or were not until lately: the group is to give it nothing as long as another
   * member can take it. A group that lives in one process does not ask: all are on one volume.
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

/** What a copy that begins is for. */
export interface Copying {
  /** The partition is to be owned here as soon as the copy is whole: it is restored before the others are. */
  readonly heir: boolean

  /** False when the group has not said of late that this member is in it. */
  readonly held: boolean

  /**
   * To be called with true when the copy has come to hold all that the changelog held when it began, and with false when it
   * no longer does, or cannot follow since its store cannot be written.
   */
  whole(is: boolean): void
}

/** A partition held at an epoch: the only way to move it forward. */
export interface Claim {
  readonly partition: number
  /** Grows with every claim of the partition; only the newest can commit. */
  readonly epoch: number
  /** The committed input offset, and the changelog end that was committed with it. */
  readonly start: { readonly input: Offset; readonly changelogEnd: Offset }
  /** The end of telemetry when the claim was taken; undefined where the log did not tell in time. */
  readonly inputEnd: Offset | undefined
  /** False when another may hold the partition by now: the group has not said of late that this member is in it. */
  readonly held: boolean
  /** Bytes that a commit should hold, about, so that the log takes it in good time; undefined: any. It changes. */
  readonly commitBytes?: number

  /**
   * Atomic: the changelog records, the dead letters and the input offset `next` all come to be, or none does.
   * Dead letters with a key go to `partitionOf(key)`, which is this one but for telemetry that another program put here.
   * Resolves, when durable, with the end of the changelog partition after it. Commits of one claim are made one at a time.
   * Rejects with FencedError when a newer epoch exists, with RetryableError when the outcome is not known: the claim is
   * over then, and whoever takes the next one learns the outcome from `start`. `isPart`: there is more of its batch.
   */
  commit(work: {
    readonly changelog: readonly NewRecord[]
    readonly deadLetters: readonly NewRecord[]
    readonly next: Offset
    readonly isPart?: boolean
  }): Promise<{ readonly changelogEnd: Offset }>
}

/**
 * What is committed from `from` on, until `to` is reached, which must not be past the end: nothing is waited for there. The
 * last batch may go further. Rejects as `follow` does, and with the reason of `signal` when that aborts.
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
