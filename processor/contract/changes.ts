import type { LogRecord, Offset } from './record.ts'

/** Changelog records in offset order, one per change of a device: key = device id, value = its status, null = deleted. */
export interface ChangeBatch {
  readonly records: readonly LogRecord[]
  /** Where to read on: compaction leaves gaps. */
  readonly next: Offset
}

/** The changelog as who follows it needs it. The log's adapters are behind it, whichever they are. */
export interface ChangeFeed {
  /** Names the changelog: another log, or one made anew, has another. */
  readonly identity: string
  readonly partitions: number
  /** How long a deletion can still be read, ms: who was away for longer may have missed some. */
  readonly deleteRetentionMs: number

  /**
   * Committed records from `from` on; waits at the end for more, and ends when `signal` aborts. The next batch is read
   * when it is asked for. Rejects with OffsetOutOfRangeError when `from` is not in the changelog.
   */
  follow(partition: number, from: Offset, signal: AbortSignal): AsyncIterable<ChangeBatch>

  /** Offset of the oldest record kept, and the end. */
  bounds(partition: number): Promise<{ readonly start: Offset; readonly end: Offset }>
}
