import type { ChangeFeed, LetterReader } from '../contract/record.ts'
import { type Log, readRange } from '../log/log.ts'

/** Letters given at once: few enough to be looked at in one turn of the event loop, but a large one. */
const LETTER_BATCH = { maxRecords: 500, maxBytes: 256 * 1024 }

/** The dead letters of `log`, for those who know only the contract. */
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

/** Changes given at once: few enough to be told to many streams in one turn of the event loop. */
const CHANGE_BATCH = { maxRecords: 500, maxBytes: 1024 * 1024 }

/** The changelog of `log`, for those who know only the contract. */
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
