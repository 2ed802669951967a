import type { Json } from '../../contract/json.ts'
import { type Order, sortKey } from '../../contract/order.ts'
import type { Condition, Place, QueryNode } from '../../contract/search.ts'
import { STATES } from '../../contract/status.ts'
import {
  attributeEntry,
  attributeGroup,
  attributePrefix,
  countOf,
  LEFT_OUT_COUNTS,
  ODD,
  PRESENT,
  SEEN_COUNTS,
  STATE_COUNTS,
  seenEntry,
  slotOf,
  stateEntry,
  UNCOUNTED,
  valueCount,
  WIDE,
} from '../../store/index-entries.ts'
import type { ReadCounts } from '../../store/partition-index.ts'
import type { EntryRange } from '../../store/store.ts'
import { Matcher, scalarOf } from '../language/match.ts'
import { literalPrefix } from '../language/pattern.ts'
import { boundText, textFor } from '../language/time-text.ts'

/**
 * The planner: decides from the counts of the index, without I/O, how a search finds its candidates. Every match is among
 * the candidates, and each candidate is tested. `scan`: all devices. `walk`: merges the posting lists of a few entries.
 * `gather`: collects those of ranges of entries and sorts them.
 */
export type IndexPlan =
  | { readonly kind: 'scan' }
  | { readonly kind: 'walk'; readonly entries: readonly string[] }
  | { readonly kind: 'gather'; readonly ranges: readonly EntryRange[] }

export interface PlanFacts {
  readonly root: QueryNode
  readonly counts: ReadCounts
  /** Devices wanted, in the order of their ids; undefined: all matches. */
  readonly limit: number | undefined
  /** Cost of a candidate of the index, in devices of a scan. */
  readonly cost: number
}

/** Measured cost of looking up and reading one candidate, in devices of a scan. */
export const CANDIDATE_COST = 4
/** Most ids that are collected: they are in memory at once, and sorted in one go. */
export const MAX_GATHERED = 8192
/** Ids that may always be collected for a page: a scan may be unlucky and find its matches far behind. */
const MAX_GATHERED_FOR_PAGE = 512
/** Posting lists that are merged. */
const MAX_WALKED = 16
/** Assumed selectivity of a prefix of which nothing is known. */
const GUESS = 1 / 64
/** Assumed selectivity of `field:value` when its values are too many to be counted. */
const GUESS_OF_MANY = 1 / 1024

export function planIndex({ root, counts, limit, cost }: PlanFacts): IndexPlan {
  const devices = devicesIn(counts)
  const lookup = devices === undefined ? undefined : lookUp(root, new Estimates(counts, devices))
  if (devices === undefined || lookup === undefined || lookup.estimate * cost > devices) return SCAN
  if (lookup.walkable && lookup.ranges.length <= MAX_WALKED) {
    return { kind: 'walk', entries: lookup.ranges.map(({ from }) => from.slice(0, -1)) }
  }
  // A scan finds a page after about limit / (estimate / devices) devices, if the matches lie evenly.
  const most = limit === undefined ? MAX_GATHERED : Math.max(MAX_GATHERED_FOR_PAGE, Math.sqrt((limit * devices) / cost))
  return lookup.estimate > Math.min(most, MAX_GATHERED) ? SCAN : { kind: 'gather', ranges: lookup.ranges }
}

const SCAN: IndexPlan = { kind: 'scan' }

/** Undefined: unknown. */
function devicesIn(counts: ReadCounts): number | undefined {
  const odd = counts.get(LEFT_OUT_COUNTS, 'odd')
  const states = counts.all(STATE_COUNTS)
  return odd === undefined || states === undefined ? undefined : sum(states.values()) + odd
}

/** The entries of the index that cover a condition. */
interface Lookup {
  readonly ranges: readonly EntryRange[]
  /** Each range is one entry. */
  readonly walkable: boolean
  /** Estimated devices. */
  readonly estimate: number
}

class Estimates {
  readonly counts: ReadCounts
  readonly devices: number

  constructor(counts: ReadCounts, devices: number) {
    this.counts = counts
    this.devices = devices
  }

  ofAttribute(group: string, what: string, states: readonly string[]): number | undefined {
    const all = this.counts.all(group)
    return all === undefined ? undefined : sum(states.map((state) => all.get(countOf(what, state)) ?? 0))
  }

  leftOut(what: 'odd' | 'wide'): number {
    return this.counts.get(LEFT_OUT_COUNTS, what) ?? this.devices
  }
}

/** `states`: the only states wanted. Undefined: the index does not help. */
function lookUp(node: QueryNode, estimates: Estimates, states: readonly string[] = STATES): Lookup | undefined {
  const known = statesOf(node)
  if (known !== undefined) return ofStates(common(known, states), estimates)
  switch (node.kind) {
    case 'all':
    case 'not':
      return undefined
    case 'and': {
      const narrowed = node.nodes.reduce((left, part) => common(left, statesOf(part) ?? left), states)
      const found = node.nodes.map((part) => lookUp(part, estimates, narrowed)).filter((one) => one !== undefined)
      return found.sort((a, b) => a.estimate - b.estimate)[0]
    }
    case 'or': {
      const found = node.nodes.map((part) => lookUp(part, estimates, states))
      return found.every((one) => one !== undefined) ? together(found) : undefined
    }
    case 'equals':
    case 'exists':
    case 'like':
    case 'range':
      break
  }
  if (node.field.name === 'lastSeenAt') return seenLookup(node, estimates)
  if (node.field.kind !== 'attribute' || node.field.path.includes('.')) return undefined
  return ofAttribute(attributeGroup(node.field.path), node, states, estimates)
}

function common(a: readonly string[], b: readonly string[]): readonly string[] {
  return a.filter((state) => b.includes(state))
}

function together(parts: readonly Lookup[]): Lookup {
  const ranges = new Map(parts.flatMap((part) => part.ranges).map((range) => [`${range.from}\n${range.to}`, range]))
  return {
    ranges: Array.from(ranges.values()),
    walkable: parts.every((part) => part.walkable),
    estimate: sum(parts.map((part) => part.estimate)),
  }
}

/** The states that satisfy a condition on the state alone; undefined for any other condition. */
function statesOf(node: QueryNode): readonly string[] | undefined {
  if (node.kind === 'all') return undefined
  const { fields, test } = new Matcher({ root: node })
  if (fields.length !== 1 || fields[0]?.name !== 'connectivity.state') return undefined
  return STATES.filter((state) => test([state]))
}

function ofStates(states: readonly string[], estimates: Estimates): Lookup {
  const estimate = sum(states.map((state) => estimates.counts.get(STATE_COUNTS, state) ?? 0))
  return withLeftOut({ ranges: states.map(stateEntry).map(rangeOf), walkable: true, estimate }, 'odd', estimates)
}

/** Adds the devices that have no entries of their own: they may satisfy any condition. */
function withLeftOut({ ranges, walkable, estimate }: Lookup, what: 'odd' | 'wide', estimates: Estimates): Lookup {
  const leftOut = estimates.leftOut(what)
  if (leftOut === 0) return { ranges, walkable, estimate }
  return { ranges: [...ranges, rangeOf(what === 'odd' ? ODD : WIDE)], walkable, estimate: estimate + leftOut }
}

function rangeOf(entry: string): EntryRange {
  return { from: `${entry}\0`, to: `${entry}\x01` }
}

function ofAttribute(
  group: string,
  node: Condition,
  states: readonly string[],
  estimates: Estimates,
): Lookup | undefined {
  const found = attributeLookup(group, node, states, estimates)
  return found === undefined ? undefined : withLeftOut(found, 'wide', estimates)
}

function attributeLookup(
  group: string,
  node: Condition,
  states: readonly string[],
  estimates: Estimates,
): Lookup | undefined {
  const { devices } = estimates
  const unknown = estimates.counts.all(group) === undefined
  if (node.kind === 'equals') {
    const scalar = scalarOf(node.value)
    const values: Json[] = scalar === undefined ? [textFor(node.field, node.value)] : [node.value.text, scalar]
    const estimate = unknown
      ? devices * GUESS_OF_MANY
      : sum(values.map((value) => estimateOf(group, value, states, estimates)))
    const ranges = values.flatMap((value) =>
      states
        .filter((state) => mayHave(group, value, state, estimates))
        .map((state) => rangeOf(attributeEntry(group, value, state))),
    )
    return { ranges, walkable: true, estimate }
  }
  // The entries of all states are interleaved.
  const present = estimates.ofAttribute(group, PRESENT, STATES)
  if (node.kind === 'exists') {
    return { ranges: [within(`${group}\0`)], walkable: false, estimate: present ?? devices }
  }
  if (node.kind === 'range') return undefined
  const literal = literalPrefix(node.pattern)
  const prefix = attributePrefix(group, literal)
  const estimate = unknown ? devices * GUESS : beginningWith(prefix, group, estimates)
  return { ranges: [within(prefix)], walkable: false, estimate }
}

function estimateOf(group: string, value: Json, states: readonly string[], estimates: Estimates): number {
  return estimates.ofAttribute(group, valueCount(value) ?? UNCOUNTED, states) ?? estimates.devices
}

/** Whether an entry may have devices. A value in a list with uncounted elements is not counted either. */
function mayHave(group: string, value: Json, state: string, { counts }: Estimates): boolean {
  const all = counts.all(group)
  const count = valueCount(value)
  return (
    all === undefined || count === undefined || all.has(countOf(count, state)) || all.has(countOf(UNCOUNTED, state))
  )
}

/** Devices whose value begins with `prefix`, and all that are not counted by value. */
function beginningWith(prefix: string, group: string, { counts }: Estimates): number {
  const beginning = prefix.slice(group.length + 1)
  let estimate = 0
  for (const [count, devices] of counts.all(group) ?? []) {
    if (count.startsWith(beginning) || count.startsWith(UNCOUNTED)) estimate += devices
  }
  return estimate
}

/** Entries that begin with `prefix`, whose last character is ASCII. */
function within(prefix: string): EntryRange {
  const last = prefix.charCodeAt(prefix.length - 1)
  return { from: prefix, to: prefix.slice(0, -1) + String.fromCharCode(last + 1) }
}

function seenLookup(node: Condition, estimates: Estimates): Lookup | undefined {
  const bounds = seenBounds(node)
  if (bounds === undefined) return undefined
  const { low, high } = bounds
  const slots = estimates.counts.all(SEEN_COUNTS)
  if (slots === undefined) return undefined
  let estimate = 0
  for (const [slot, devices] of slots) {
    if (slot >= slotOf(low) && (high === undefined || slot <= slotOf(high))) estimate += devices
  }
  return withLeftOut({ ranges: [seenRange(bounds)], walkable: false, estimate }, 'odd', estimates)
}

function seenRange({ low, high }: SeenBounds): EntryRange {
  return { from: seenEntry(low), to: high === undefined ? seenEntry('\x7f') : `${seenEntry(high)}\x01` }
}

/** An inclusive range of `lastSeenAt`; without `high` it is open. */
interface SeenBounds {
  readonly low: string
  readonly high: string | undefined
}

function seenBounds(node: Condition): SeenBounds | undefined {
  if (node.kind === 'exists') return undefined
  if (node.kind === 'equals') {
    const text = textFor(node.field, node.value)
    return { low: text, high: text }
  }
  if (node.kind === 'range') {
    return {
      low: node.low === undefined ? '' : boundText(node.field, node.low, 'low'),
      high: node.high === undefined ? undefined : boundText(node.field, node.high, 'high'),
    }
  }
  const [literal] = /^[ -~]*/.exec(literalPrefix(node.pattern)) as RegExpExecArray
  return literal === '' ? undefined : { low: literal, high: `${literal}\x7f` }
}

function sum(numbers: Iterable<number>): number {
  let total = 0
  for (const number of numbers) total += number
  return total
}

export interface TopNFacts {
  readonly root: QueryNode
  readonly counts: ReadCounts
  readonly order: Order
  readonly after: Place | undefined
  readonly limit: number
  /** See `PlanFacts`. */
  readonly cost: number
}

/** The entries that hold the first N devices in the order of `lastSeenAt`. */
export interface TopNPlan {
  readonly ranges: readonly EntryRange[]
  /** `ranges` hold all matches after `after` up to this place; undefined: all. */
  readonly upTo: Place | undefined
}

/**
 * Undefined when the index cannot tell, or a scan is cheaper. The devices may be fewer than the limit, or none, as some move
 * meanwhile.
 */
export function planTopN(facts: TopNFacts): TopNPlan | undefined {
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

/** The range of `lastSeenAt` that the query and `after` leave; undefined when the query asks for anything else. */
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

/** The last slot needed (undefined: all slots). Undefined when the slots hold more than `most` devices. */
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
