import { partitionOf } from '../../processor/contract/partition.ts'
import type { Owner, OwnerMap } from '../../processor/contract/query.ts'

/** What of one question is asked of one owner; `places`: where its devices stand in the question. */
export interface Share {
  readonly owner: Owner
  readonly deviceIds: string[]
  readonly partitions: number[]
  readonly places: number[]
}

/** By whom each device of a question is answered. `unowned`: by partition, the places of those that have no owner. */
export function shareOut(
  deviceIds: readonly string[],
  map: OwnerMap,
  partitions: number,
): { shares: Share[]; unowned: Map<number, number[]> } {
  const shares: Share[] = []
  const unowned = new Map<number, number[]>()
  let share: Share | undefined
  for (let i = 0; i < deviceIds.length; i++) {
    const deviceId = deviceIds[i] as string
    const partition = partitionOf(deviceId, partitions)
    const owner = map.get(partition)?.active
    if (owner === undefined) {
      group(unowned, partition, i)
      continue
    }
    // Where all is in one process it is always the same.
    if (share?.owner.endpoint !== owner.endpoint) {
      share = shares.find((known) => known.owner.endpoint === owner.endpoint)
      if (share === undefined) shares.push((share = { owner, deviceIds: [], partitions: [], places: [] }))
    }
    share.deviceIds.push(deviceId)
    share.partitions.push(partition)
    share.places.push(i)
  }
  return { shares, unowned }
}

/** Puts `place` to those of its partition. */
export function group(places: Map<number, number[]>, partition: number, place: number): void {
  const known = places.get(partition)
  if (known === undefined) places.set(partition, [place])
  else known.push(place)
}
