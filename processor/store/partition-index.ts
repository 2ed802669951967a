import { guarded } from './damage.ts'
import {
  INDEX_VERSION,
  type IndexSink,
  LEFT_OUT_COUNTS,
  type Move,
  reindex,
  SEEN_COUNTS,
  STATE_COUNTS,
} from './index-entries.ts'
import type { Database } from './level-store.ts'
import type { EntryRange, StoreIndex } from './store.ts'

/** Counts of one group that are kept; when there would be more, the group is given up until the index is built anew. */
const MAX_COUNTS = 4096
/** Groups kept; when there would be more, further ones never are, until the index is built anew. */
const MAX_GROUPS = 64

/** Groups that have their place before all others. */
const ALWAYS = [STATE_COUNTS, SEEN_COUNTS, LEFT_OUT_COUNTS]

/** Stands for all of a group, or of all groups that are not here: they are not counted. */
const GIVEN_UP = '-'
const REFUSED = '-'

export type CountChanges = Map<string, Map<string, number>>

/** A count as it is stored: `value` undefined: not any more. */
export interface StoredCount {
  readonly key: string
  readonly value: number | undefined
}

/** What searches may know of the counts. */
export interface ReadCounts {
  /** Undefined: it is not known. */
  get(group: string, what: string): number | undefined
  /** All counts of a group that are not zero; undefined: they are not known. */
  all(group: string): ReadonlyMap<string, number> | undefined
}

/** How many devices have which entries: exact, as far as there are not too many different ones. Bounded in memory and store. */
export class IndexCounts implements ReadCounts {
  /** Undefined: given up. */
  readonly #groups = new Map<string, Map<string, number> | undefined>(ALWAYS.map((group) => [group, new Map()]))
  #refused = false

  /** `stored`: the keys and values of what `planned` gave. */
  static load(stored: Iterable<readonly [key: string, value: string]>): IndexCounts {
    const counts = new IndexCounts()
    for (const [key, value] of stored) counts.#set(key, Number(value))
    return counts
  }

  get(group: string, what: string): number | undefined {
    const counts = this.all(group)
    return counts === undefined ? undefined : (counts.get(what) ?? 0)
  }

  all(group: string): ReadonlyMap<string, number> | undefined {
    if (this.#groups.has(group)) return this.#groups.get(group)
    return this.#refused ? undefined : NONE
  }

  /** What is to be stored when `changes` are made; they are once it is given to `accept`. */
  planned(changes: CountChanges): StoredCount[] {
    const stored: StoredCount[] = []
    let groups = this.#groups.size
    let refused = this.#refused
    for (const [group, counts] of changes) {
      const known = this.#groups.get(group)
      if (known === undefined) {
        if (this.#groups.has(group) || refused) continue
        if (groups === MAX_GROUPS) {
          refused = true
          stored.push({ key: keyOf('', REFUSED), value: 1 })
          continue
        }
        groups++
      }
      const made = changed(known ?? NONE, counts)
      if (made === undefined) {
        for (const what of known?.keys() ?? []) stored.push({ key: keyOf(group, what), value: undefined })
        stored.push({ key: keyOf(group, GIVEN_UP), value: 1 })
      } else {
        for (const [what, count] of made)
          stored.push({ key: keyOf(group, what), value: count === 0 ? undefined : count })
      }
    }
    return stored
  }

  accept(stored: readonly StoredCount[]): void {
    for (const { key, value } of stored) this.#set(key, value)
  }

  #set(key: string, value: number | undefined): void {
    const at = key.indexOf('\0')
    const [group, what] = [key.slice(0, at), key.slice(at + 1)]
    if (group === '') {
      this.#refused = true
      return
    }
    if (what === GIVEN_UP) {
      this.#groups.set(group, undefined)
      return
    }
    let counts = this.#groups.get(group)
    if (counts === undefined) this.#groups.set(group, (counts = new Map()))
    if (value === undefined) counts.delete(what)
    else counts.set(what, value)
  }
}

const NONE: ReadonlyMap<string, number> = new Map()

/** The counts that change, as they will be; undefined when the group comes to have too many. */
function changed(known: ReadonlyMap<string, number>, by: ReadonlyMap<string, number>): Map<string, number> | undefined {
  const made = new Map<string, number>()
  let size = known.size
  for (const [what, change] of by) {
    if (change === 0) continue
    const before = known.get(what) ?? 0
    const after = before + change
    if (before === 0) size++
    if (after === 0) size--
    made.set(what, after)
  }
  return size > MAX_COUNTS ? undefined : made
}

function keyOf(group: string, what: string): string {
  return `${group}\0${what}`
}

/** `off`: this process keeps none. `absent`: it is to be built. `building`: it holds the devices up to an id. */
type IndexState = 'off' | 'absent' | 'building' | 'ready'

const NO_VALUE = Buffer.alloc(0)

/** What a write of the store does to the index. */
export interface IndexWrite {
  readonly puts: readonly string[]
  readonly deletes: readonly string[]
  readonly counts: readonly StoredCount[]
}

export const NOTHING: IndexWrite = { puts: [], deletes: [], counts: [] }

/**
 * The secondary indexes of one partition, and the counts beside them. They are written in the batches of the statuses, by
 * the store, one batch at a time; what is here in memory follows when the batch is written.
 */
export class PartitionIndex implements StoreIndex {
  readonly #db: Database
  readonly #entries: string
  readonly #counted: string
  #state: IndexState
  #counts = new IndexCounts()
  /** While it is built: the last device that is in it. */
  #built = ''
  /** Of a write that failed nobody can say whether it was made: the counts must be read again. */
  #doubtful: boolean

  /** `version`: of the index that is in the store; undefined: none. `off`: none is kept. */
  constructor(db: Database, partition: string, version: number | undefined, off: boolean) {
    this.#db = db
    this.#entries = `i${partition}:`
    this.#counted = `c${partition}:`
    this.#state = off ? 'off' : version === INDEX_VERSION ? 'ready' : 'absent'
    this.#doubtful = this.#state === 'ready'
  }

  /** What a search may use. */
  get usable(): boolean {
    return this.#state === 'ready' && !this.#doubtful
  }

  get missing(): boolean {
    return this.#state === 'absent' || this.#state === 'building'
  }

  /** Building is to begin. */
  get begins(): boolean {
    return this.#state === 'absent'
  }

  /** As the store tells of it with its next write. */
  get version(): number | undefined {
    return this.#state === 'ready' ? INDEX_VERSION : undefined
  }

  get built(): string {
    return this.#built
  }

  get counts(): IndexCounts {
    return this.#counts
  }

  /** Before a write. */
  async settle(): Promise<void> {
    if (!this.#doubtful) return
    const prefix = this.#counted
    const stored = await guarded(() => this.#db.iterator({ gte: prefix, lt: afterPrefix(prefix) }).all())
    this.#counts = IndexCounts.load(stored.map(([key, value]) => [key.slice(prefix.length), value.toString()]))
    this.#doubtful = false
  }

  /** Whether the index has, or is to have, the device when it is written now. */
  covers(deviceId: string): boolean {
    return this.#state === 'ready' || (this.#state === 'building' && deviceId <= this.#built)
  }

  /** What a write of the store that makes these moves does to the index. */
  changes(moves: readonly Move[]): IndexWrite {
    if (this.#state === 'ready') return this.#collected(moves)
    if (this.#state !== 'building') return NOTHING
    return this.#collected(moves.filter(({ deviceId }) => deviceId <= this.#built))
  }

  /** What a write does that adds devices which are not in the index yet. */
  additions(moves: readonly Move[]): IndexWrite {
    return this.#collected(moves)
  }

  #collected(moves: readonly Move[]): IndexWrite {
    if (moves.length === 0) return NOTHING
    const sink = new Collector(this.#entries)
    for (const move of moves) reindex(move, sink)
    return { puts: sink.puts, deletes: sink.deletes, counts: this.#counts.planned(sink.counts) }
  }

  /** Makes the write a part of `batch`; then `accept` follows, or `doubt`. */
  addTo(batch: ReturnType<Database['batch']>, { puts, deletes, counts }: IndexWrite): void {
    for (const key of deletes) batch.del(key)
    for (const key of puts) batch.put(key, NO_VALUE)
    for (const { key, value } of counts) {
      if (value === undefined) batch.del(this.#counted + key)
      else batch.put(this.#counted + key, Buffer.from(String(value)))
    }
  }

  accept({ counts }: IndexWrite): void {
    this.#counts.accept(counts)
  }

  /** The write failed. What was built so far cannot be built upon. */
  doubt(): void {
    if (this.#state === 'building') this.#state = 'absent'
    if (this.#state === 'ready') this.#doubtful = true
  }

  /** Building begins, from nothing. */
  async begin(): Promise<void> {
    await this.#clear()
    this.#state = 'building'
  }

  /** The devices up to `deviceId` are in it; undefined: all are. */
  advance(deviceId: string | undefined): void {
    if (deviceId === undefined) this.#state = 'ready'
    else this.#built = deviceId
  }

  /** Building it anew, once the store is filled, costs less than keeping it up while it is. */
  giveUp(): void {
    if (this.#state === 'ready') this.#state = 'absent'
    this.#doubtful = false
  }

  /** The store is empty, and so is its index. */
  async wipe(): Promise<void> {
    await this.#clear()
    if (this.#state !== 'off') this.#state = 'ready'
  }

  async #clear(): Promise<void> {
    for (const prefix of [this.#entries, this.#counted]) {
      await guarded(() => this.#db.clear({ gte: prefix, lt: afterPrefix(prefix) }))
    }
    this.#counts = new IndexCounts()
    this.#built = ''
    this.#doubtful = false
  }

  async read(ranges: readonly EntryRange[], limit: number, backwards: boolean): Promise<string[][]> {
    const prefix = this.#entries
    return guarded(async () => {
      const snapshot = ranges.length > 1 ? this.#db.snapshot() : undefined
      try {
        const one = async ({ from, to }: EntryRange): Promise<string[]> => {
          const keys = this.#db.keys({ gte: prefix + from, lt: prefix + to, limit, reverse: backwards, snapshot })
          return (await keys.all()).map((key) => key.slice(key.lastIndexOf('\0') + 1))
        }
        return await Promise.all(ranges.map(one))
      } finally {
        await snapshot?.close()
      }
    })
  }
}

/** The first key after all that begin with the prefix, which ends with a colon. */
function afterPrefix(prefix: string): string {
  return `${prefix.slice(0, -1)};`
}

class Collector implements IndexSink {
  readonly puts: string[] = []
  readonly deletes: string[] = []
  readonly counts: CountChanges = new Map()
  readonly #prefix: string

  constructor(prefix: string) {
    this.#prefix = prefix
  }

  put(entry: string, deviceId: string): void {
    this.puts.push(`${this.#prefix}${entry}\0${deviceId}`)
  }

  delete(entry: string, deviceId: string): void {
    this.deletes.push(`${this.#prefix}${entry}\0${deviceId}`)
  }

  count(group: string, what: string, by: number): void {
    let counts = this.counts.get(group)
    if (counts === undefined) this.counts.set(group, (counts = new Map()))
    counts.set(what, (counts.get(what) ?? 0) + by)
  }
}
