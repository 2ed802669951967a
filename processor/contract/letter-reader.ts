import type { LogRecord, Offset } from './record.ts'

/**
 * The dead letters as who shows them needs them. The log's adapters are behind it, whichever they are. A letter with a key
 * is in the partition in which the key lives, unless another program put it elsewhere.
 */
export interface LetterReader {
  /** Names the log: a place in the letters of another one means nothing here. */
  readonly identity: string
  readonly partitions: number

  /** Offset of the oldest letter kept, and the end. When `signal` aborts, the log is asked no further. */
  bounds(partition: number, signal: AbortSignal): Promise<{ readonly start: Offset; readonly end: Offset }>

  /**
   * Committed letters from `from` on, in order, until `to` is reached, which must not be past the end; the last batch may
   * go further. What of a batch is kept must be copied: values may be views of larger buffers.
   * Rejects with OffsetOutOfRangeError when retention has passed `from`, with the reason of `signal` when that
   * aborts.
   */
  read(partition: number, from: Offset, to: Offset, signal: AbortSignal): AsyncIterable<readonly LogRecord[]>
}
