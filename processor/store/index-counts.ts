import { LEFT_OUT_COUNTS, SEEN_COUNTS, STATE_COUNTS } from './index-entries.ts'

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
