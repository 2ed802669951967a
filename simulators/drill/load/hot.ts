import { partitionOf } from '../../../processor/contract/partition.ts'
import type { Random } from '../../random.ts'

/** How a fleet is shared out over connections that take turns, and which of its devices each lets speak. */
export interface HotFleet {
  /** Device n speaks over connection n modulo this. */
  readonly connections: number
  /** Which of a connection's devices (from 0) speaks next. */
  readonly choose: (connection: number) => number
}

/**
 * At least `share` of the messages go to one partition, that of the first device. A connection can only send for its own
 * devices, so there are no more connections than leave each of them one of that partition.
 */
export function hotFleet(
  ids: readonly string[],
  partitions: number,
  share: number,
  maxConnections: number,
  random: Random,
): HotFleet {
  const partition = partitionOf(ids[0] as string, partitions)
  const hot = ids.flatMap((id, device) => (partitionOf(id, partitions) === partition ? [device] : []))
  let connections = Math.min(ids.length, maxConnections)
  while (new Set(hot.map((device) => device % connections)).size < connections) connections--
  const its = Map.groupBy(hot, (device) => device % connections)
  return {
    connections,
    choose(connection) {
      const among = its.get(connection) as number[]
      if (random() < share) return Math.floor((among[Math.floor(random() * among.length)] as number) / connections)
      return Math.floor(random() * Math.ceil((ids.length - connection) / connections))
    },
  }
}
