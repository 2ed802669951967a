import type { LetterReader } from '../contract/letter-reader.ts'
import type { Log } from '../log/log.ts'
import { stretch } from '../log/stretch.ts'

/** Letters given at once: few enough to be looked at in one turn of the event loop, but a large one. */
const BATCH = { maxRecords: 500, maxBytes: 256 * 1024 }

/** The dead letters of `log`, for those who know only the contract. */
export function letterReader(log: Log): LetterReader {
  const { cluster, telemetry, partitions } = log.identity
  const topic = 'dead-letters'
  return {
    identity: `${cluster} ${telemetry}`,
    partitions,
    bounds: (index, signal) => log.bounds({ topic, index }, signal),
    async *read(index, from, to, signal) {
      for await (const { records } of stretch(log, { topic, index }, from, to, BATCH, signal)) yield records
    },
  }
}
