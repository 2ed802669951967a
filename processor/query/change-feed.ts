import type { ChangeFeed } from '../contract/changes.ts'
import type { Log } from '../log/log.ts'

/** Changes given at once: few enough to be told to many streams in one turn of the event loop. */
const BATCH = { maxRecords: 500, maxBytes: 1024 * 1024 }

/** The changelog of `log`, for those who know only the contract. */
export function changeFeed(log: Log): ChangeFeed {
  const { cluster, status, partitions } = log.identity
  return {
    identity: `${cluster} ${status}`,
    partitions,
    deleteRetentionMs: log.deleteRetentionMs,
    follow: (index, from, signal) => log.follow({ topic: 'status', index }, from, BATCH, signal),
    bounds: (index) => log.bounds({ topic: 'status', index }),
  }
}
