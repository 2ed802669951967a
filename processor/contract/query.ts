import type { TidemarkError } from './errors.ts'
import { viewOf } from './json.ts'
import type { Offset, Position } from './record.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from './search.ts'
import type { Outcome, Write } from './write.ts'

/**
 * How fresh an answer is. `offset`: input position that it includes; `lag`: input records after it at that time;
 * `changelog`: the answer includes at least everything before this position of the changelog.
 */
export interface Freshness {
  readonly partition: number
  readonly offset: Offset
  readonly changelog: Offset
  readonly lag: number
  readonly servedBy: 'owner' | 'standby'
}

/** Bytes `start` to `end` of a shared buffer that nobody overwrites: a view of each status costs more than its read. */
export interface Slice {
  readonly buffer: Buffer
  readonly start: number
  readonly end: number
}

/** `status`: the JSON of a Status as UTF-8; undefined when the device is not known. */
export interface Answer {
  readonly status: Slice | undefined
  readonly freshness: Freshness
}

/**
 * An answer that includes some record of the log. `outcome` tells the result of that record if it is a write and the
 * result is known.
 */
export interface PastAnswer extends Answer {
  readonly outcome: Outcome | undefined
}

/** Answers from the stores of one process, in process or over its query endpoint. */
export interface PartitionReader {
  /** Answers in the order of `deviceIds`, all of which live in `partition`. UnavailableError NOT_OWNER: no copy here. */
  getMany(partition: number, deviceIds: readonly string[]): Promise<Answer[]>

  /**
   * Answers for `deviceIds[i]` of `partitions[i]`, in this order. An error stands for an answer that this process
   * cannot give now.
   */
  getEach(deviceIds: readonly string[], partitions: readonly number[]): Promise<(Answer | TidemarkError)[]>

  /**
   * Lists up to `limit` devices of the partition with id > `after`, ascending; fewer when they are large. Only an empty
   * answer is the end.
   */
  list(partition: number, after: string | undefined, limit: number): Promise<Listing>

  /**
   * Answers as soon as the copy includes the record at `position`. Rejects with UnavailableError POSITION_NOT_REACHED
   * after `withinMs`.
   */
  getPast(position: Position, deviceId: string, withinMs: number): Promise<PastAnswer>

  /** One slice of a search, or of a summary; the asker puts them together. */
  search(question: SearchQuestion): Promise<SearchSlice>
  summarize(question: SummaryQuestion): Promise<SummarySlice>

  copies(): Promise<Copy[]>
}

export function sliceOf(bytes: Uint8Array): Slice {
  const buffer = viewOf(bytes)
  return { buffer, start: 0, end: buffer.length }
}

export function bufferOf({ buffer, start, end }: Slice): Buffer {
  return buffer.subarray(start, end)
}

export interface Listing {
  readonly items: readonly { readonly deviceId: string; readonly status: Uint8Array }[]
  readonly freshness: Freshness
}

export interface Copy {
  readonly partition: number
  readonly instance: string
  readonly role: 'owner' | 'standby'
  readonly state: 'restoring' | 'running'
  /** It answers reads: it has been whole, though it may restore what it lacks since, and knows how far behind it is. */
  readonly readable: boolean
  /** Input and changelog position reached. */
  readonly offset: Offset
  readonly changelogOffset: Offset
  /**
   * Waiting records: of the input for an owner (beyond the committed ones while it restores), of the changelog for a
   * standby. Undefined: the end is unknown.
   */
  readonly lag: number | undefined
  /** Undefined until the copy has been complete, and while devices are being counted. */
  readonly devices: number | undefined
  /** Present while the copy restores and the end is known. */
  readonly restore?: Restore | undefined
}

/**
 * How far a restoring copy is from its end, in offsets: records, and the gaps that compaction left. `etaSeconds` is
 * undefined while the current rate is unknown.
 */
export interface Restore {
  readonly remaining: number
  readonly recordsPerSecond: number
  readonly etaSeconds: number | undefined
}

export interface PartitionInfo {
  readonly partition: number
  readonly owner: Copy | undefined
  readonly standbys: readonly Copy[]
}

/** Answers what the API asks. Rejects with UnavailableError when no copy of a partition can answer. */
export interface StatusReader {
  get(deviceId: string): Promise<Answer>
  /** Answers in the order of `deviceIds`. An UnavailableError stands for an answer that is not to be had now. */
  getMany(deviceIds: readonly string[]): Promise<(Answer | Error)[]>
  /** Lists devices of one partition, as `PartitionReader.list` does: only an empty answer is the end. */
  listPartition(partition: number, after: string | undefined, limit: number): Promise<Listing>
  /** Answers one slice, for the partition that the question names. */
  search(question: SearchQuestion): Promise<SearchSlice>
  summarize(question: SummaryQuestion): Promise<SummarySlice>
  readonly partitionCount: number
  partitions(): Promise<PartitionInfo[]>
  /** The partition in which the device lives. */
  partitionOf(deviceId: string): number
  /** As `PartitionReader.getPast`, from the first copy that is far enough. */
  getPast(position: Position, deviceId: string, withinMs: number): Promise<PastAnswer>
}

/** Changes devices for the API, through the log like everything else. */
export interface DeviceWriter {
  /**
   * Resolves with the write's position in the log once it is durable. The outcome is decided when its turn comes.
   * Rejects with RetryableError when the log may or may not have it.
   */
  write(deviceId: string, write: Write): Promise<Position>
}

export interface Owner {
  readonly instance: string
  readonly endpoint: string
}

/** Per partition; a partition nobody owns has no `active`. */
export type OwnerMap = ReadonlyMap<number, { readonly active: Owner | undefined; readonly standbys: readonly Owner[] }>
