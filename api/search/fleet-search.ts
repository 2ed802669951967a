import type { Field } from '../../processor/contract/field.ts'
import {
  compareInOrder,
  type Order,
  printOrder,
  type SortKey,
  sortKey,
  sortKeyOf,
} from '../../processor/contract/order.ts'
import type { Freshness, StatusReader } from '../../processor/contract/query.ts'
import { isDeviceId } from '../../processor/contract/record.ts'
import { type Place, printQuery, type Query, type Selection } from '../../processor/contract/search.ts'
import { Summary } from '../../processor/contract/summary.ts'
import { Matcher } from '../../processor/search/language/match.ts'
import { StoredFields } from '../../processor/search/language/stored-fields.ts'
import { type Seal, seal, sha256Checksum, unseal } from '../http/cursor.ts'

type SearchReader = Pick<StatusReader, 'partitionCount' | 'search'>
type SummaryReader = Pick<StatusReader, 'partitionCount' | 'summarize'>

export interface FoundDevice extends Place {
  readonly status: Uint8Array
  readonly freshness: Freshness
}

export interface FoundPage {
  readonly items: readonly FoundDevice[]
  /** Where the next page begins. Undefined: this is the last page, or its end is unknown. */
  readonly next: Place | undefined
  /** False: the time ran out before everything was examined. */
  readonly complete: boolean
}

export interface SearchOptions extends Selection {
  readonly order: Order
  readonly after: Place | undefined
  readonly limit: number
  /** Once true, no further slice is asked for. */
  readonly isOver: () => boolean
}

/** Finds the devices of all partitions that satisfy the query, in order. Rejects when a partition cannot answer. */
export async function searchFleet(reader: SearchReader, options: SearchOptions): Promise<FoundPage> {
  const { order, limit } = options
  // An order that the store does not keep is computed anew for each question, so each partition gives all that may be
  // needed.
  const inOrder = order.field.name === 'deviceId'
  const first = inOrder ? share(limit + 1, reader.partitionCount) : limit + 1
  const lanes = Array.from({ length: reader.partitionCount }, (_, partition) => new Lane(reader, partition, options))
  await Promise.all(lanes.map((lane) => lane.fill(first)))
  const items: FoundDevice[] = []
  for (;;) {
    const lane = foremost(lanes, order)
    if (lane === undefined) return page(items, lanes, options, false)
    // A device that was not examined may belong before these.
    const cut = lanes.some((other) => other.cut && (!inOrder || !other.passed(lane.head as FoundDevice)))
    if (cut || items.length === limit) return page(items, lanes, options, items.length === limit && !cut)
    items.push(lane.take())
    if (lane.head !== undefined) continue
    const wanted = limit + 1 - items.length
    const few = share(wanted, lanes.length)
    // A partition that gave little may have to examine everything next, and others with it. It is better to do so at
    // once.
    if (inOrder) await lane.fill(few)
    else await Promise.all(lanes.filter((other) => other.left < few).map((other) => other.fill(wanted)))
  }
}

function page(items: FoundDevice[], lanes: readonly Lane[], { order, after }: SearchOptions, full: boolean): FoundPage {
  const last = items.at(-1)
  if (full) return { items, next: last, complete: true }
  const cut = lanes.filter((lane) => lane.cut)
  if (cut.length === 0) return { items, next: undefined, complete: true }
  if (order.field.name !== 'deviceId') return { items, next: undefined, complete: false }
  // All partitions were examined up to the least of these, where the next page goes on.
  const reached = cut.map((lane) => lane.reached ?? after?.deviceId)
  const least = reached.reduce((a, b) =>
    a === undefined || b === undefined ? undefined : a < b === order.descending ? b : a,
  )
  const next = least === undefined ? undefined : { key: sortKey(least), deviceId: least }
  return { items, next: next ?? after, complete: false }
}

/**
 * Keys spread evenly over the partitions, so a page needs about its share from each. That and a few more are read
 * ahead, not the whole page from each partition.
 */
export function share(limit: number, partitions: number): number {
  const even = limit / partitions
  return Math.min(limit, Math.ceil(even + 2 * Math.sqrt(even)) + 1)
}

function foremost(lanes: readonly Lane[], { descending }: Order): Lane | undefined {
  let found: Lane | undefined
  for (const lane of lanes) {
    if (lane.head === undefined) continue
    if (found?.head === undefined || compare(descending, lane.head, found.head) < 0) found = lane
  }
  return found
}

function compare(descending: boolean, a: Place, b: Place): number {
  return compareInOrder(descending, a.key, a.deviceId, b.key, b.deviceId)
}

/** Devices that one partition found and has not given yet. */
class Lane {
  readonly #reader: SearchReader
  readonly #partition: number
  readonly #options: SearchOptions
  readonly #fields: StoredFields
  #items: FoundDevice[] = []
  #next = 0
  #after: Place | undefined
  #ended = false
  /** The time ran out before the partition was examined as far as needed. */
  cut = false
  /** In id order: how far the partition was examined. */
  reached: string | undefined

  constructor(reader: SearchReader, partition: number, options: SearchOptions) {
    this.#reader = reader
    this.#partition = partition
    this.#options = options
    // Keeps every field by which the partition chose the device: what is no JSON, or has a member twice, may differ
    // otherwise.
    this.#fields = new StoredFields([...new Matcher(options.query).fields, options.order.field])
    this.#after = options.after
  }

  get head(): FoundDevice | undefined {
    return this.#items[this.#next]
  }

  get left(): number {
    return this.#items.length - this.#next
  }

  take(): FoundDevice {
    return this.#items[this.#next++] as FoundDevice
  }

  /** In id order: everything before `place` was examined. */
  passed({ deviceId }: Place): boolean {
    if (this.reached === undefined) return false
    return this.#options.order.descending ? deviceId >= this.reached : deviceId <= this.reached
  }

  /**
   * Fetches until `wanted` devices are there that nothing found later can precede, or all there are; fewer when they
   * are large.
   */
  async fill(wanted: number): Promise<void> {
    const { query, within, order, isOver } = this.#options
    let items: FoundDevice[] = []
    let more = false
    let bound: Place | undefined
    let reached: number | undefined
    for (let from: string | undefined; !this.#ended && !this.cut; ) {
      const place = { partition: this.#partition, after: this.#after, from, reached }
      const slice = await this.#reader.search({ ...place, query, within, order, limit: wanted })
      const found = slice.items.map(({ deviceId, status }) => this.#found(deviceId, status, slice.freshness))
      items = merge(items, found, order.descending)
      // Devices that this slice left out come after its last one, so nothing beyond that can be given yet.
      const last = slice.more ? found.at(-1) : undefined
      if (last !== undefined && (bound === undefined || compare(order.descending, last, bound) < 0)) bound = last
      if (bound !== undefined) items = upTo(items, bound, order.descending)
      more ||= slice.more || items.length > wanted
      items.length = Math.min(items.length, wanted)
      if (slice.next === undefined) {
        this.#ended = !more
        break
      }
      if (slice.settled && items.length >= wanted) break
      from = slice.next
      reached ??= slice.freshness.changelog
      if (!isOver()) continue
      this.cut = true
      this.reached = from
    }
    const last = items.at(-1)
    if (last !== undefined) this.#after = { key: last.key, deviceId: last.deviceId }
    this.#items = merge(this.#items.slice(this.#next), items, order.descending)
    this.#next = 0
  }

  #found(deviceId: string, status: Uint8Array, freshness: Freshness): FoundDevice {
    const isId = this.#options.order.field.name === 'deviceId'
    const key: SortKey = sortKey(isId ? deviceId : this.#fields.read(status).at(-1))
    return { deviceId, status, freshness, key }
  }
}

/** Keeps each device once: one that changed may be found at its old and its new place. */
function merge(a: readonly FoundDevice[], b: readonly FoundDevice[], descending: boolean): FoundDevice[] {
  const byId = new Map([...a, ...b].map((found) => [found.deviceId, found]))
  return Array.from(byId.values()).sort((x, y) => compare(descending, x, y))
}

function upTo(items: FoundDevice[], bound: Place, descending: boolean): FoundDevice[] {
  return items.filter((found) => compare(descending, found, bound) <= 0)
}

export interface SummaryOptions extends Selection {
  readonly by: readonly Field[]
  readonly metrics: readonly Field[]
  readonly isOver: () => boolean
}

export interface FleetSummary {
  readonly summary: Summary
  /** False: the time ran out before all devices were examined. */
  readonly complete: boolean
  readonly freshness: readonly Freshness[]
}

/** Counts the devices of all partitions that satisfy the query. Rejects when a partition cannot answer. */
export async function summarizeFleet(reader: SummaryReader, options: SummaryOptions): Promise<FleetSummary> {
  const { isOver, ...question } = options
  const summary = new Summary(options.metrics.length)
  let complete = true
  const one = async (partition: number): Promise<Freshness> => {
    let freshness: Freshness | undefined
    let reached: number | undefined
    for (let from: string | undefined; ; ) {
      const slice = await reader.summarize({ ...question, partition, from, reached })
      summary.merge(slice.summary)
      freshness = freshness === undefined ? slice.freshness : freshnessOfBoth(freshness, slice.freshness)
      if (slice.next === undefined) return freshness
      from = slice.next
      reached ??= slice.freshness.changelog
      if (!isOver()) continue
      complete = false
      return freshness
    }
  }
  const freshness = await Promise.all(Array.from({ length: reader.partitionCount }, (_, partition) => one(partition)))
  return { summary, complete, freshness }
}

/** The freshness of two joined slices is the older of each part. */
function freshnessOfBoth(a: Freshness, b: Freshness): Freshness {
  return {
    partition: a.partition,
    offset: Math.min(a.offset, b.offset),
    changelog: Math.min(a.changelog, b.changelog),
    lag: Math.max(a.lag, b.lag),
    servedBy: a.servedBy === 'owner' ? b.servedBy : 'standby',
  }
}

/** A cursor is base64url of `<version>:<checksum>:<JSON of the place where the page ended>`. */
const VERSION = '2:'

/** Characters of the longest cursor: a sort key of 128 characters, each escaped, and a device id. */
export const MAX_CURSOR = 1400

export function encodeCursor({ key, deviceId }: Place, query: Query, order: Order): string {
  const place = JSON.stringify([key, deviceId])
  return Buffer.from(`${VERSION}${seal(place, sealOf(query, order))}`).toString('base64url')
}

/** Undefined when no page of this query in this order gave the cursor. */
export function decodeCursor(cursor: string, query: Query, order: Order): Place | undefined {
  const text = Buffer.from(cursor, 'base64url').toString()
  const json = unseal(text.slice(VERSION.length), sealOf(query, order))
  if (json === undefined) return undefined
  const [keyJson, deviceId] = JSON.parse(json) as [unknown, unknown]
  const key = sortKeyOf(keyJson)
  if (key === undefined || typeof deviceId !== 'string' || !isDeviceId(deviceId)) return undefined
  const place = { key, deviceId }
  // Base64 has several texts for the same bytes.
  return encodeCursor(place, query, order) === cursor ? place : undefined
}

function sealOf(query: Query, order: Order): Seal {
  const bound = [printQuery(query), printOrder(order)]
  return { separator: ':', checksum: (place) => sha256Checksum(JSON.stringify([place, ...bound])) }
}
