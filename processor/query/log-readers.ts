import type { ChangeFeed, LetterReader } from '../contract/record.ts'
import { type Log, readRange } from '../log/log.ts'

/** Dead letters of one batch, small enough to look at in one turn of the event loop. */
const LETTER_BATCH = { maxRecords: 500, maxBytes: 256 * 1024 }

/** Gives the dead letters of `log` to code that knows only the contract. */
export function letterReader(log: Log): LetterReader {
  const { cluster, telemetry, partitions } = log.identity
  const topic = 'dead-letters'
  return {
    identity: `${cluster} ${telemetry}`,
    partitions,
    bounds: (index, signal) => log.bounds({ topic, index }, signal),
    async *read(index, from, to, signal) {
      for await (const { records } of readRange(log, { topic, index }, from, to, LETTER_BATCH, signal)) yield records
    },
  }
}

/** Changes of one batch, few enough to tell many streams in one turn of the event loop. */
const CHANGE_BATCH = { maxRecords: 500, maxBytes: 1024 * 1024 }

/** Gives the changelog of `log` to code that knows only the contract. */
export function changeFeed(log: Log): ChangeFeed {
  const { cluster, status, partitions } = log.identity
  return {
    identity: `${cluster} ${status}`,
    partitions,
    deleteRetentionMs: log.deleteRetentionMs,
    follow: (index, from, signal) => log.follow({ topic: 'status', index }, from, CHANGE_BATCH, signal),
    bounds: (index) => log.bounds({ topic: 'status', index }),
  }
}
