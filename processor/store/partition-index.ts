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

/** Counts kept for one group. At the bound the group is given up until the index is rebuilt. */
const MAX_COUNTS = 4096
/** Groups kept. Further ones are not counted until the index is rebuilt. */
const MAX_GROUPS = 64

/** These groups are always counted. */
const ALWAYS = [STATE_COUNTS, SEEN_COUNTS, LEFT_OUT_COUNTS]

/** Stored in place of a group that was given up, or of all groups beyond the bound. */
const GIVEN_UP = '-'
const REFUSED = '-'

export type CountChanges = Map<string, Map<string, number>>

/** A count as it is stored. An undefined `value` deletes it. */
export interface StoredCount {
  readonly key: string
  readonly value: number | undefined
}

/** The counts as searches see them. */
export interface ReadCounts {
  /** Undefined: unknown. */
  get(group: string, what: string): number | undefined
  /** All counts of a group except zeros. Undefined: unknown. */
  all(group: string): ReadonlyMap<string, number> | undefined
}

/** Counts how many devices have each entry: exactly, within bounds of memory and store. */
export class IndexCounts implements ReadCounts {
  /** Undefined: the group was given up. */
  readonly #groups = new Map<string, Map<string, number> | undefined>(ALWAYS.map((group) => [group, new Map()]))
  #refused = false

  /** `stored` holds keys and values that `planned` returned. */
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

  /** Returns what to store for `changes`. They take effect once it is given to `accept`. */
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

/** Returns the new values of the counts that change. Undefined when the group gets too many. */
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

/** `off`: this process keeps no index. `absent`: it must be built. `building`: it holds the devices up to an id. */
type IndexState = 'off' | 'absent' | 'building' | 'ready'

const NO_VALUE = Buffer.alloc(0)

export interface IndexWrite {
  readonly puts: readonly string[]
  readonly deletes: readonly string[]
  readonly counts: readonly StoredCount[]
}

export const NOTHING: IndexWrite = { puts: [], deletes: [], counts: [] }

/**
 * The secondary indexes and counts of one partition. The store writes them in the same batches as the statuses, one
 * batch at a time, and the memory here follows once a batch is written.
 */
export class PartitionIndex implements StoreIndex {
  readonly #db: Database
  readonly #entries: string
  readonly #counted: string
  #state: IndexState
  #counts = new IndexCounts()
  /** While building: the last device that the index holds. */
  #built = ''
  /** Nobody knows whether a failed write took effect, so the counts must be read again. */
  #doubtful: boolean

  /** `version` of the stored index; undefined: none. `off`: no index is kept. */
  constructor(db: Database, partition: string, version: number | undefined, off: boolean) {
    this.#db = db
    this.#entries = `i${partition}:`
    this.#counted = `c${partition}:`
    this.#state = off ? 'off' : version === INDEX_VERSION ? 'ready' : 'absent'
    this.#doubtful = this.#state === 'ready'
  }

  /** Whether searches may use the index. */
  get usable(): boolean {
    return this.#state === 'ready' && !this.#doubtful
  }

  get missing(): boolean {
    return this.#state === 'absent' || this.#state === 'building'
  }

  /** Whether building must begin. */
  get begins(): boolean {
    return this.#state === 'absent'
  }

  /** The version that the store's next write records. */
  get version(): number | undefined {
    return this.#state === 'ready' ? INDEX_VERSION : undefined
  }

  get built(): string {
    return this.#built
  }

  get counts(): IndexCounts {
    return this.#counts
  }

  /** Reads the counts again if they are in doubt. Called before each write. */
  async settle(): Promise<void> {
    if (!this.#doubtful) return
    const prefix = this.#counted
    const stored = await guarded(() => this.#db.iterator({ gte: prefix, lt: afterPrefix(prefix) }).all())
    this.#counts = IndexCounts.load(stored.map(([key, value]) => [key.slice(prefix.length), value.toString()]))
    this.#doubtful = false
  }

  /** Whether a write of this device must also write the index. */
  covers(deviceId: string): boolean {
    return this.#state === 'ready' || (this.#state === 'building' && deviceId <= this.#built)
  }

  /** Returns the changes that these moves make to the index. */
  changes(moves: readonly Move[]): IndexWrite {
    if (this.#state === 'ready') return this.#collected(moves)
    if (this.#state !== 'building') return NOTHING
    return this.#collected(moves.filter(({ deviceId }) => deviceId <= this.#built))
  }

  /** Returns the changes for devices that are not in the index yet. */
  additions(moves: readonly Move[]): IndexWrite {
    return this.#collected(moves)
  }

  #collected(moves: readonly Move[]): IndexWrite {
    if (moves.length === 0) return NOTHING
    const sink = new Collector(this.#entries)
    for (const move of moves) reindex(move, sink)
    return { puts: sink.puts, deletes: sink.deletes, counts: this.#counts.planned(sink.counts) }
  }

  /** Adds the changes to `batch`. `accept` or `doubt` must follow. */
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

  /** The write failed, so an unfinished index must be begun anew. */
  doubt(): void {
    if (this.#state === 'building') this.#state = 'absent'
    if (this.#state === 'ready') this.#doubtful = true
  }

  /** Begins to build from nothing. */
  async begin(): Promise<void> {
    await this.#clear()
    this.#state = 'building'
  }

  /** Notes that the index holds the devices up to `deviceId`; undefined: all devices. */
  advance(deviceId: string | undefined): void {
    if (deviceId === undefined) this.#state = 'ready'
    else this.#built = deviceId
  }

  /** While a store is filled, rebuilding the index afterwards costs less than keeping it. */
  giveUp(): void {
    if (this.#state === 'ready') this.#state = 'absent'
    this.#doubtful = false
  }

  /** Empties the index with its store. */
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

/** The first key after all keys with this prefix, which ends with a colon. */
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
