import type { TidemarkError } from './errors.ts'
import { viewOf } from './json.ts'
import type { Offset, Position } from './record.ts'
import type { SearchQuestion, SearchSlice, SummaryQuestion, SummarySlice } from './search.ts'
import type { Outcome, Write } from './write.ts'

/**
 * How fresh an answer is. `offset`: input position the answer includes; `lag`: input records after it when it was given;
 * `changelog`: everything in the changelog before it is in the answer, which may hold more.
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

/** An answer that includes some record of the log. `outcome`: what that came to, when it is a write and that is known. */
export interface PastAnswer extends Answer {
  readonly outcome: Outcome | undefined
}

/** What one process can answer from its own stores; in process, or over its query endpoint. */
export interface PartitionReader {
  /** Answers in the order of `deviceIds`, all of which live in `partition`. UnavailableError NOT_OWNER: no copy here. */
  getMany(partition: number, deviceIds: readonly string[]): Promise<Answer[]>

  /**
   * The devices `deviceIds[i]` of the partitions `partitions[i]`, in this order. An error in place of the answer: this
   * process cannot give it now.
   */
  getEach(deviceIds: readonly string[], partitions: readonly number[]): Promise<(Answer | TidemarkError)[]>

  /** Up to `limit` devices of the partition with id > `after`, ascending; of many bytes, fewer: only an empty answer is the end. */
  list(partition: number, after: string | undefined, limit: number): Promise<Listing>

  /**
   * The status of a device of the partition as soon as the copy includes the record at `position`. UnavailableError
   * POSITION_NOT_REACHED when it does not after `withinMs`.
   */
  getPast(position: Position, deviceId: string, withinMs: number): Promise<PastAnswer>

  /** One slice of a search, or of a summary; the asker puts them together. */
  search(question: SearchQuestion): Promise<SearchSlice>
  summarize(question: SummaryQuestion): Promise<SummarySlice>

  /** The copies held here. */
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

/** One copy of a partition. */
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
   * Records that wait: an owner's of the input (those after what is committed, while it restores), a standby's of the
   * changelog. Undefined while the end is not known.
   */
  readonly lag: number | undefined
  /** Devices held; undefined until the copy has been whole, and while they are being counted. */
  readonly devices: number | undefined
  /** While it is restoring, once the end is known. */
  readonly restore?: Restore | undefined
}

/**
 * How far a copy is on its way to be whole, in offsets: records, and the gaps that compaction left. `etaSeconds`: undefined
 * while the rate, that of the last seconds, is not known.
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

/** What the API asks. Rejects with UnavailableError when no copy of a partition can answer. */
export interface StatusReader {
  get(deviceId: string): Promise<Answer>
  /** In the order of `deviceIds`; an UnavailableError in place of an answer that cannot be had now. */
  getMany(deviceIds: readonly string[]): Promise<(Answer | Error)[]>
  /** Devices of one partition, as `PartitionReader.list` has them: only an empty answer is the end. */
  listPartition(partition: number, after: string | undefined, limit: number): Promise<Listing>
  /** Of the partition that the question names, one slice. */
  search(question: SearchQuestion): Promise<SearchSlice>
  summarize(question: SummaryQuestion): Promise<SummarySlice>
  readonly partitionCount: number
  partitions(): Promise<PartitionInfo[]>
  /** Where the device lives. */
  partitionOf(deviceId: string): number
  /** As `PartitionReader.getPast`, from whichever copy is there first. */
  getPast(position: Position, deviceId: string, withinMs: number): Promise<PastAnswer>
}

/** How the API changes devices: through the log, as everything does. */
export interface DeviceWriter {
  /**
   * Resolves, when the write is durable, with where it is in the log; what it comes to is decided when its turn comes.
   * Rejects with RetryableError when it is not known whether the log has it.
   */
  write(deviceId: string, write: Write): Promise<Position>
}

export interface Owner {
  readonly instance: string
  readonly endpoint: string
}

/** Per partition; a partition nobody owns has no `active`. */
export type OwnerMap = ReadonlyMap<number, { readonly active: Owner | undefined; readonly standbys: readonly Owner[] }>
