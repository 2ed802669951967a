import type { Answer, Freshness, Listing } from '../processor/contract/query.ts'

type Item = Listing['items'][number]

/** The part of one partition that was read ahead. */
interface Lane {
  readonly partition: number
  items: readonly Item[]
  next: number
  freshness: Freshness
  /** The last id read; the next question goes on after it. */
  after: string | undefined
  /** A question was answered with nothing: the partition ends here. A short answer says nothing, it may be bounded. */
  ended: boolean
}

export type ListPartition = (partition: number, after: string | undefined, limit: number) => Promise<Listing>

/** Devices of all partitions with id > `after`, ascending in byte order, at most `limit`. */
export async function mergeLists(
  partitions: number,
  after: string | undefined,
  limit: number,
  list: ListPartition,
): Promise<{ items: (Answer & { deviceId: string })[]; more: boolean }> {
  const ask = share(limit + 1, partitions)
  const lanes = await Promise.all(Array.from({ length: partitions }, (_, p) => openLane(p, after, ask, list)))
  const items: (Answer & { deviceId: string })[] = []
  for (;;) {
    const lane = lowest(lanes)
    if (lane === undefined) return { items, more: false }
    if (items.length === limit) return { items, more: true }
    const { deviceId, status } = lane.items[lane.next++] as Item
    items.push({ deviceId, status, freshness: lane.freshness })
    if (lane.next === lane.items.length) await refill(lane, share(limit + 1 - items.length, partitions), list)
  }
}

/**
 * Keys spread evenly over the partitions, so a page needs about its share of each: that and a few more is read ahead
 * instead of the whole page from every partition.
 */
function share(limit: number, partitions: number): number {
  const even = limit / partitions
  return Math.min(limit, Math.ceil(even + 2 * Math.sqrt(even)) + 1)
}

async function openLane(
  partition: number,
  after: string | undefined,
  limit: number,
  list: ListPartition,
): Promise<Lane> {
  const { items, freshness } = await list(partition, after, limit)
  return { partition, items, next: 0, freshness, after: items.at(-1)?.deviceId, ended: items.length === 0 }
}

async function refill(lane: Lane, limit: number, list: ListPartition): Promise<void> {
  Object.assign(lane, await openLane(lane.partition, lane.after, limit, list))
}

function lowest(lanes: readonly Lane[]): Lane | undefined {
  let found: Lane | undefined
  let id = ''
  for (const lane of lanes) {
    if (lane.ended) continue
    const head = (lane.items[lane.next] as Item).deviceId
    // Ids are ASCII, where the order of UTF-16 code units is the order of bytes.
    if (found === undefined || head < id) {
      found = lane
      id = head
    }
  }
  return found
}
