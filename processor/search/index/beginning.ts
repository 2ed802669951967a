import { type Order, sortKey } from '../../contract/order.ts'
import type { Place } from '../../contract/search.ts'
import type { QueryNode } from '../../contract/search-query.ts'
import type { ReadCounts } from '../../store/index-counts.ts'
import { LEFT_OUT_COUNTS, ODD, SEEN_COUNTS, slotOf } from '../../store/index-entries.ts'
import type { EntryRange } from '../../store/store.ts'
import { devicesIn, MAX_GATHERED, rangeOf, type SeenBounds, seenBounds, seenRange } from './plan.ts'

export interface BeginningFacts {
  readonly root: QueryNode
  readonly counts: ReadCounts
  readonly order: Order
  readonly after: Place | undefined
  /** Devices that are looked for. */
  readonly limit: number
  /** As `PlanFacts` has it. */
  readonly cost: number
}

/** Where the first devices of a list are that is in the order of `lastSeenAt`. */
export interface Beginning {
  readonly ranges: readonly EntryRange[]
  /** What satisfies the query and stands after `after`, up to here, is in `ranges`; undefined: all of it is. */
  readonly upTo: Place | undefined
}

/**
 * Pure. Undefined when the index cannot tell, or when that is no cheaper than to look at all. The devices may be fewer
 * than the limit, and even none, when some move meanwhile, or no time satisfies the query.
 */
export function planBeginning(facts: BeginningFacts): Beginning | undefined {
  const { root, counts, order, after, limit, cost } = facts
  const { field, descending } = order
  const devices = devicesIn(counts)
  const slots = counts.all(SEEN_COUNTS)
  const span = field.name === 'lastSeenAt' ? spanOf(root, descending, after) : undefined
  if (devices === undefined || slots === undefined || span === undefined) return undefined
  const odd = counts.get(LEFT_OUT_COUNTS, 'odd') ?? devices
  // Devices that have no entry of their own may stand anywhere.
  const most = Math.min(MAX_GATHERED, devices / cost) - odd
  const first = firstSlots(slots, span, descending, limit, most)
  if (first === undefined) return undefined
  const { last } = first
  const seen = seenRange(last === undefined ? span : descending ? { ...span, low: last } : { ...span, high: last })
  const ranges = odd === 0 ? [seen] : [seen, rangeOf(ODD)]
  // No time of an entry has a character over `~`.
  const end = descending || last === undefined ? last : `${last}\x7f`
  return { ranges, upTo: end === undefined ? undefined : { key: sortKey(end), deviceId: '' } }
}

/** Between which texts `lastSeenAt` is, both included, of all that can be meant; undefined: that is not all that is asked. */
function spanOf(root: QueryNode, descending: boolean, after: Place | undefined): SeenBounds | undefined {
  const asked = root.kind === 'and' ? root.nodes : [root]
  const parts = asked.map(boundsOf)
  if (after !== undefined) {
    const [, time] = after.key
    if (typeof time !== 'string') return undefined
    parts.push(descending ? { low: '', high: time } : { low: time, high: undefined })
  }
  let span: SeenBounds = ALL
  for (const part of parts) {
    if (part === undefined) return undefined
    span = both(span, part)
  }
  return span
}

const ALL: SeenBounds = { low: '', high: undefined }

function boundsOf(node: QueryNode): SeenBounds | undefined {
  if (node.kind === 'all') return ALL
  const plain = node.kind === 'equals' || node.kind === 'range'
  return plain && node.field.name === 'lastSeenAt' ? seenBounds(node) : undefined
}

function both(a: SeenBounds, b: SeenBounds): SeenBounds {
  const lower = a.high === undefined || (b.high !== undefined && b.high < a.high) ? b.high : a.high
  return { low: a.low > b.low ? a.low : b.low, high: lower }
}

/** The last of the slots to look in, of which undefined is all. Undefined when the devices there would be more than `most`. */
function firstSlots(
  slots: ReadonlyMap<string, number>,
  { low, high }: SeenBounds,
  descending: boolean,
  limit: number,
  most: number,
): { readonly last: string | undefined } | undefined {
  const [lowest, highest] = [slotOf(low), high === undefined ? undefined : slotOf(high)]
  const inside = Array.from(slots.keys()).filter((slot) => {
    return slot >= lowest && (highest === undefined || slot <= highest)
  })
  inside.sort()
  if (descending) inside.reverse()
  let candidates = 0
  let found = 0
  let last: string | undefined
  for (const slot of inside) {
    if (found >= limit) return { last }
    const devices = slots.get(slot) as number
    // Before a slot that has most of the fleet stand those that are silent, which mostly are enough.
    if (candidates + devices > most) return candidates >= limit ? { last } : undefined
    candidates += devices
    // At the ends of the span a part of the devices is outside, and it may be all of them.
    if (slot !== lowest && slot !== highest) found += devices
    last = slot
  }
  return most < 0 ? undefined : { last: undefined }
}
