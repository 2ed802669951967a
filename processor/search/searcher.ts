import { compareInOrder, type SortKey, sortKey } from '../contract/order.ts'
import { MAX_ANSWER_BYTES } from '../contract/query-wire.ts'
import type { Offset } from '../contract/record.ts'
import type {
  Place,
  Query,
  QueryNode,
  SearchQuestion,
  SearchSlice,
  Selection,
  SummaryQuestion,
  SummarySlice,
} from '../contract/search.ts'
import { readableStatus } from '../contract/status.ts'
import { Summary } from '../contract/summary.ts'
import { Limiter } from '../runtime/limiter.ts'
import type { Turns } from '../runtime/turns.ts'
import type { Checkpoint, Searched } from '../store/store.ts'
import { CANDIDATE_COST, planIndex, planTopN } from './index/plan.ts'
import { CollectedPostings, IndexScan, PostingsMerge } from './index/scan.ts'
import { Matcher } from './language/match.ts'
import { literalPrefix } from './language/pattern.ts'
import { StoredFields } from './language/stored-fields.ts'
import { beyond, FullScan, type IdRange, intersect, LAST, type Source } from './scan.ts'
import { tally } from './tally.ts'

/** How long one slice may take, ms; well under the time after which a copy counts as unavailable. */
export const SLICE_MS = 250

/** Devices of one read: making objects of them takes about 3 ms. */
const MAX_READ = 512

/** Devices that a scan examines on the event loop, about 3 ms, before it goes on elsewhere: a page is mostly found by then. */
const MAX_SCANNED_HERE = 512

export interface SearcherOptions {
  /** Devices read of the store at once. */
  readonly maxRead?: number
  /** What a candidate of an index costs, see `planIndex`. */
  readonly candidateCost?: number
  /** Where scans that are long go on; without it, they go on here. */
  readonly scans?: Scans | undefined
}

/** Undefined: the slice shows the store itself, at or after the time of the question. */
interface ReadElsewhere {
  readonly reached?: Pick<Checkpoint, 'input' | 'changelog'> | undefined
}
export type FoundSlice = Omit<SearchSlice, 'freshness'> & ReadElsewhere
export type SummedSlice = Omit<SummarySlice, 'freshness'> & ReadElsewhere

/**
 * The state of a scanned store: everything in the changelog before `reached`, and nothing from before its last wipe.
 */
export interface Held {
  readonly generation: number
  readonly reached: Offset
}

/** Scans the same stores once they hold as much as `held`. Rejects as a store does. */
export interface Scans {
  search(question: SearchQuestion, held: Held): Promise<FoundSlice>
  summarize(question: SummaryQuestion, held: Held): Promise<SummedSlice>
}

/** Answers questions about many devices from a store, slice by slice, so that the event loop stays free for others. */
export class Searcher {
  readonly #turns: Turns
  readonly #now: () => number
  /**
   * Resolves when the scan at the front has had its turn of the event loop. Others wait behind it, so batches get every
   * other turn.
   */
  #scanning: Promise<void> = Promise.resolve()

  /** A read of a scan makes its objects in one go. All partitions at once would hold the event loop. */
  readonly #reading = new Limiter(1)
  readonly #maxRead: number
  readonly #candidateCost: number
  readonly #scans: Scans | undefined

  /** `now` is monotonic, ms. */
  constructor(
    turns: Turns,
    now: () => number,
    { maxRead = MAX_READ, candidateCost = CANDIDATE_COST, scans }: SearcherOptions = {},
  ) {
    this.#turns = turns
    this.#now = now
    this.#maxRead = maxRead
    this.#candidateCost = candidateCost
    this.#scans = scans
  }

  async search(store: Searched, question: SearchQuestion): Promise<FoundSlice> {
    const { order, after, from, limit } = question
    const { field, descending } = order
    const inOrder = field.name === 'deviceId'
    let ranges = idRanges(question)
    if (from !== undefined) ranges = beyond(ranges, from, descending && inOrder)
    if (inOrder && after !== undefined) ranges = beyond(ranges, after.deviceId, descending)
    const beginning = await this.#beginning(store, question, ranges)
    if (beginning !== undefined) return beginning
    const source = await this.#source(store, question, ranges, inOrder ? { backwards: descending, limit } : {})
    if ('search' in source) return source.search(question, heldBy(store, question))
    return inOrder ? this.#inOrder(question, source) : this.#best(question, source)
  }

  async summarize(store: Searched, question: SummaryQuestion): Promise<SummedSlice> {
    const { query, by, metrics, within, from } = question
    const summary = new Summary(metrics.length)
    const everything = query.root.kind === 'all' && within === undefined && by.length === 0 && metrics.length === 0
    // The previous slice may come from a copy that could not tell.
    if (everything && from === undefined && store.count !== undefined) {
      summary.addDevices(store.count)
      summary.addMany([], store.count)
      return { summary: summary.toJSON(), next: undefined }
    }
    const tallied = store.index === undefined ? undefined : tally(question, store.index.counts)
    if (tallied !== undefined) return { summary: tallied.toJSON(), next: undefined }
    let ranges = idRanges(question)
    if (from !== undefined) ranges = beyond(ranges, from, false)
    const matcher = new Matcher(query)
    const fields = new StoredFields([...matcher.fields, ...by, ...metrics])
    const byAt = matcher.fields.length
    const metricsAt = byAt + by.length
    const source = await this.#source(store, question, ranges, {})
    if ('summarize' in source) return source.summarize(question, heldBy(store, question))
    const next = await this.#examine(source, matcher, (_, status) => {
      const values = fields.read(status)
      if (!matcher.test(values)) return true
      const work = summary.add(values.slice(byAt, metricsAt), values.slice(metricsAt))
      // The turn's end is checked when the status itself is counted.
      if (work > 0) this.#turns.spend(work)
      return true
    })
    return { summary: summary.toJSON(), next }
  }

  async #inOrder({ query, limit }: SearchQuestion, source: Source): Promise<FoundSlice> {
    const matcher = new Matcher(query)
    const fields = new StoredFields(matcher.fields)
    const items: { deviceId: string; status: Uint8Array }[] = []
    let bytes = 0
    const next = await this.#examine(source, matcher, (deviceId, status) => {
      if (!matcher.test(fields.read(status))) return true
      items.push({ deviceId, status: own(status) })
      bytes += status.byteLength
      return items.length < limit && bytes < MAX_ANSWER_BYTES
    })
    return { items, settled: true, more: false, next }
  }

  /**
   * Reads the beginning of an order from an index that has it. Undefined: the index does not help, so everything is
   * examined.
   */
  async #beginning(
    store: Searched,
    question: SearchQuestion,
    ranges: readonly IdRange[],
  ): Promise<FoundSlice | undefined> {
    const { index } = store
    const { query, order, after, limit, within } = question
    // The query may match few or none of the first devices.
    if (index === undefined || within !== undefined) return undefined
    const cost = this.#candidateCost
    const beginning = planTopN({ root: query.root, counts: index.counts, order, after, limit, cost })
    if (beginning === undefined) return undefined
    const gathered = await CollectedPostings.from(index, beginning.ranges, ranges, false)
    if (gathered === undefined) return undefined
    const source = new IndexScan(store, gathered, { maxRead: this.#maxRead, first: undefined })
    const slice = await this.#best(question, source, beginning.upTo)
    // A caller that is told of more asks for what follows the last item.
    return slice.more && slice.items.length === 0 ? undefined : slice
  }

  /** Keeps the best, since the order differs from that of the reading. `upTo`: see `TopNPlan`. */
  async #best({ query, order, after, limit }: SearchQuestion, source: Source, upTo?: Place): Promise<FoundSlice> {
    const matcher = new Matcher(query)
    const fields = new StoredFields([...matcher.fields, order.field])
    const keyAt = matcher.fields.length
    const best = new Best(limit, order.descending, after, upTo)
    const next = await this.#examine(source, matcher, (deviceId, status) => {
      const values = fields.read(status)
      if (matcher.test(values)) best.add({ key: sortKey(values[keyAt]), deviceId, status })
      return true
    })
    return { items: best.take(), settled: next === undefined, more: best.more, next }
  }

  /** `limit`: how many are wanted, in order; undefined: all. A scan goes on elsewhere. */
  async #source(
    store: Searched,
    { query: { root }, from }: Continued,
    ranges: readonly IdRange[],
    { backwards = false, limit }: { readonly backwards?: boolean; readonly limit?: number },
  ): Promise<Source | Scans> {
    const { index } = store
    const cost = this.#candidateCost
    // Without further conditions every candidate matches.
    const reads = { maxRead: this.#maxRead, first: root.kind === 'and' ? undefined : limit }
    const plan = index === undefined ? undefined : planIndex({ root, counts: index.counts, limit, cost })
    if (index !== undefined && plan?.kind === 'walk') {
      return new IndexScan(store, new PostingsMerge(index, plan.entries, ranges, backwards), reads)
    }
    if (index !== undefined && plan?.kind === 'gather') {
      const gathered = await CollectedPostings.from(index, plan.ranges, ranges, backwards)
      if (gathered !== undefined) return new IndexScan(store, gathered, reads)
    }
    // A plain list examines no more than its page.
    const isPage = root.kind === 'all' && limit !== undefined
    if (this.#scans !== undefined && from !== undefined && !isPage) return this.#scans
    const most = this.#scans === undefined || isPage ? undefined : MAX_SCANNED_HERE
    const page = isPage ? { first: limit, limit } : {}
    return new FullScan(store, ranges, { backwards, maxRead: this.#maxRead, most, reading: this.#reading, ...page })
  }

  /**
   * Examines until `look` returns false, enough were examined here, or the slice's time is over. Returns the id to go
   * on after; undefined at the end.
   */
  async #examine(source: Source, matcher: Matcher, look: Look): Promise<string | undefined> {
    const until = this.#now() + SLICE_MS
    let last: string | undefined
    let examined = 0
    try {
      for (;;) {
        const entries = await source.next()
        if (entries === undefined) return undefined
        // A page in id order mostly ends within the first read.
        if (last !== undefined) source.readAhead()
        for (const [deviceId, status] of entries) {
          last = deviceId
          if (!look(deviceId, readableStatus(status, deviceId)) || ++examined === source.most) return last
          if (!this.#turns.spend(status.byteLength + matcher.takeWork())) continue
          await this.#turn()
          // One read may be the work of many turns. Leaving it would mean reading it twice.
          if (this.#now() >= until + SLICE_MS) return last
        }
        if (this.#now() >= until && last !== undefined) return last
      }
    } finally {
      await source.close()
    }
  }

  async #turn(): Promise<void> {
    const before = this.#scanning
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#scanning = promise
    await before
    await this.#turns.take().next()
    resolve()
  }
}

/** Returns whether to look at the next device. */
type Look = (deviceId: string, status: Uint8Array) => boolean

/** A question that may be a later slice of its search. */
interface Continued extends Selection {
  readonly from: string | undefined
  readonly reached?: Offset | undefined
}

/** A search does not go back behind what it has seen, and begins no earlier than the store. */
function heldBy({ checkpoint, generation }: Searched, { reached }: Continued): Held {
  return { generation, reached: reached ?? checkpoint?.changelog ?? 0 }
}

/** Copies a status that outlives its read: it may share 64 KiB of memory with others. */
function own(status: Uint8Array): Uint8Array {
  return status.byteLength < status.buffer.byteLength ? new Uint8Array(status) : status
}

interface Found {
  readonly key: SortKey
  readonly deviceId: string
  readonly status: Uint8Array
}

/** The first `limit` devices after `after`, fewer when they are too large for one answer. */
class Best {
  readonly #limit: number
  readonly #descending: boolean
  readonly #after: Place | undefined
  #found: Found[] = []
  #bytes = 0
  #worst: Place | undefined
  more: boolean

  /** `upTo`: beyond it not all devices were added. */
  constructor(limit: number, descending: boolean, after: Place | undefined, upTo: Place | undefined) {
    this.#limit = limit
    this.#descending = descending
    this.#after = after
    this.#worst = upTo
    this.more = upTo !== undefined
  }

  add(found: Found): void {
    const after = this.#after
    if (after !== undefined && this.#compare(found, after) <= 0) return
    if (this.#worst !== undefined && this.#compare(found, this.#worst) > 0) {
      this.more = true
      return
    }
    this.#found.push({ ...found, status: own(found.status) })
    this.#bytes += found.status.byteLength
    if (this.#found.length >= 2 * this.#limit || this.#bytes >= 2 * MAX_ANSWER_BYTES) this.#cut()
  }

  take(): Found[] {
    this.#cut()
    return this.#found
  }

  #cut(): void {
    const sorted = this.#found.sort((a, b) => this.#compare(a, b))
    this.#bytes = 0
    let kept = 0
    while (kept < sorted.length && kept < this.#limit && (kept === 0 || this.#bytes < MAX_ANSWER_BYTES)) {
      this.#bytes += (sorted[kept++] as Found).status.byteLength
    }
    if (kept < sorted.length) {
      this.more = true
      // Nothing after it can be among the first, even when better ones push it out.
      this.#worst = sorted[kept - 1]
    }
    this.#found = sorted.slice(0, kept)
  }

  #compare(a: Place, b: Place): number {
    return compareInOrder(this.#descending, a.key, a.deviceId, b.key, b.deviceId)
  }
}

/** The ranges of ids that the query and the prefixes allow. */
function idRanges({ query, within }: Selection): IdRange[] {
  const all = within?.map((prefix) => ({ from: prefix, to: prefix + LAST })) ?? [{ from: '', to: LAST }]
  return conditions(query).reduce(narrow, all)
}

/** The conditions that must all hold. */
function conditions({ root }: Query): readonly QueryNode[] {
  return root.kind === 'and' ? root.nodes : [root]
}

function narrow(ranges: IdRange[], node: QueryNode): IdRange[] {
  if (!('field' in node) || node.field.name !== 'deviceId') return ranges
  if (node.kind === 'equals') return intersect(ranges, { from: node.value.text, to: `${node.value.text}\0` })
  const prefix = node.kind === 'like' ? literalPrefix(node.pattern) : ''
  return prefix === '' ? ranges : intersect(ranges, { from: prefix, to: prefix + LAST })
}
