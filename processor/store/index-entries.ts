import { parseField } from '../contract/field.ts'
import { beginningOf, type Json, type JsonObject } from '../contract/json.ts'
import { readableStatus, STATES } from '../contract/status.ts'
import { StoredFields } from '../search/language/stored-fields.ts'
import type { HeldStatus } from '../status/held-status.ts'

/**
 * The secondary indexes of a partition, and the counts beside them. An entry is a text, followed by the id of a device
 * for which it is true. Pure: entries and counts follow from a status alone.
 */

/**
 * Raise it whenever the same status gives other entries or counts (test/processor/store/index-version.test.ts notices).
 * A store of another version rebuilds its index.
 */
export const INDEX_VERSION = 5

/** The indexed parts of a status. A foreign status may hold anything in their place. */
export interface Indexed {
  readonly state: Json | undefined
  readonly lastSeenAt: Json | undefined
  /** JSON of the attributes. */
  readonly attributes: string | undefined
}

/** A device's indexed parts before and after. Undefined: it did not exist, or no longer does. */
export interface Move {
  readonly deviceId: string
  readonly before: Indexed | undefined
  readonly after: Indexed | undefined
}

/** Attributes of a device, and elements of a list, that get their own entries. */
const MAX_ATTRIBUTES = 16
const MAX_NAME = 64
/** Characters of a value's JSON. Longer values get the entry of their beginning, and are not counted one by one. */
const MAX_VALUE = 64

/**
 * Length of `2026-11-24T10:0`: one entry and count for ten minutes, so that a device that reports all the time seldom
 * moves.
 */
const SLOT = 15

/** Groups that count devices by state, and by the ten minutes in which they were last seen. */
export const STATE_COUNTS = 's'
export const SEEN_COUNTS = 'h'
/** Counts of devices that are not in all entries: `odd` and `wide`. */
export const LEFT_OUT_COUNTS = '!'

/**
 * `odd` devices have no readable `connectivity.state` or `lastSeenAt`, as only foreign statuses lack; `wide` ones have
 * more attributes than get entries. Every search in the index looks at both.
 */
export const ODD = '!odd'
export const WIDE = '!wide'

export function stateEntry(state: string): string {
  return `s\0${state}`
}

/** The entry of a moment, or of the beginning of one. Entries sort by time. */
export function seenEntry(time: string): string {
  return `l\0${time.slice(0, SLOT)}`
}

export function slotOf(time: string): string {
  return time.slice(0, SLOT)
}

/** The group of an attribute's entries and counts: `a"site"`. */
export function attributeGroup(name: string): string {
  return `a${JSON.stringify(name)}`
}

/** The entry of a value and a state: searches often ask for an attribute among devices of one state. */
export function attributeEntry(group: string, value: Json, state: string): string {
  return `${beginning(group, value)}\0${state}`
}

function beginning(group: string, value: Json): string {
  return `${group}\0${beginningOf(valueText(value), MAX_VALUE)}`
}

/**
 * The common beginning of all entries of texts that begin with `text`, up to its first character that is not ASCII.
 * Other texts may share it.
 */
export function attributePrefix(group: string, text: string): string {
  const [plain] = /^[ -~]*/.exec(text) as RegExpExecArray
  return beginning(group, plain)
}

/** Stands for values without an entry of their own: objects, and empty lists. */
const OTHER = '{'

/** Drops the closing quote of a text, so that it starts like the texts that it begins. */
function valueText(value: Json): string {
  const json = JSON.stringify(value)
  return typeof value === 'string' ? json.slice(0, -1) : json
}

/** Counts of an attribute by state: devices that have it, that have a list, and that are not counted by value. */
export const PRESENT = '*'
export const LISTS = '['
export const UNCOUNTED = '?'

/** Undefined: the value is counted among UNCOUNTED. */
export function valueCount(value: Json): string | undefined {
  const json = JSON.stringify(value)
  return json.length <= MAX_VALUE ? json : undefined
}

export function countOf(what: string, state: string): string {
  return `${what}\0${state}`
}

export function readCount(count: string): readonly [what: string, state: string] {
  const at = count.indexOf('\0')
  return [count.slice(0, at), count.slice(at + 1)]
}

export interface IndexSink {
  put(entry: string, deviceId: string): void
  delete(entry: string, deviceId: string): void
  count(group: string, what: string, by: number): void
}

export function indexedOf({ state, lastSeenAt, attributes }: HeldStatus): Indexed {
  return { state, lastSeenAt, attributes }
}

const STORED = new StoredFields(
  ['connectivity.state', 'lastSeenAt', 'attributes'].map(
    (name) => parseField(name) as NonNullable<ReturnType<typeof parseField>>,
  ),
)

/** Reads the indexed parts of stored bytes, whether they are a status or not. */
export function indexedIn(deviceId: string, stored: Uint8Array): Indexed {
  const [state, lastSeenAt, attributes] = STORED.read(readableStatus(stored, deviceId))
  return { state, lastSeenAt, attributes: attributes === undefined ? undefined : JSON.stringify(attributes) }
}

/** Whether the index stays the same. Some moves without effect may pass for a change. */
export function isSamePlace(before: Indexed | undefined, after: Indexed | undefined): boolean {
  if (before === undefined || after === undefined) return before === after
  if (before.state !== after.state || before.attributes !== after.attributes) return false
  const [from, to] = [before.lastSeenAt, after.lastSeenAt]
  return typeof from === 'string' && typeof to === 'string' && from.length === to.length && isSameSlot(from, to)
}

/** Whether two times of one form have the same entry. */
function isSameSlot(before: string, after: string): boolean {
  if (before === after) return true
  for (let i = SLOT - 1; i >= 0; i--) if (before.charCodeAt(i) !== after.charCodeAt(i)) return false
  return true
}

/** Tells `sink` which entries and counts the move changes. */
export function reindex({ deviceId, before, after }: Move, sink: IndexSink): void {
  const from = before === undefined ? NOWHERE : placed(before)
  const to = after === undefined ? NOWHERE : placed(after)
  if (from.state !== to.state || from.odd !== to.odd) {
    if (from.state !== undefined) leave(stateEntry(from.state), STATE_COUNTS, from.state, deviceId, sink)
    if (to.state !== undefined) enter(stateEntry(to.state), STATE_COUNTS, to.state, deviceId, sink)
    if (from.odd) leave(ODD, LEFT_OUT_COUNTS, 'odd', deviceId, sink)
    if (to.odd) enter(ODD, LEFT_OUT_COUNTS, 'odd', deviceId, sink)
  }
  moveSeen(from.seen, to.seen, deviceId, sink)
  // Attributes have entries and counts for each state.
  if (before?.attributes === after?.attributes && from.state === to.state && from.odd === to.odd) return
  moveAttributes(attributesOf(before, from), attributesOf(after, to), from.state, to.state, deviceId, sink)
}

interface Placed {
  readonly state: string | undefined
  readonly seen: string | undefined
  readonly odd: boolean
}

const NOWHERE: Placed = { state: undefined, seen: undefined, odd: false }
const ODDLY: Placed = { state: undefined, seen: undefined, odd: true }
const TIME = /^[ -~]{24}$/

function placed({ state, lastSeenAt, attributes }: Indexed): Placed {
  const known = STATES.find((one) => one === state)
  if (known === undefined || typeof lastSeenAt !== 'string' || !TIME.test(lastSeenAt)) return ODDLY
  if (attributes !== undefined && !attributes.startsWith('{')) return ODDLY
  return { state: known, seen: lastSeenAt, odd: false }
}

function moveSeen(from: string | undefined, to: string | undefined, deviceId: string, sink: IndexSink): void {
  if (from !== undefined && to !== undefined && isSameSlot(from, to)) return
  if (from !== undefined) leave(seenEntry(from), SEEN_COUNTS, slotOf(from), deviceId, sink)
  if (to !== undefined) enter(seenEntry(to), SEEN_COUNTS, slotOf(to), deviceId, sink)
}

function enter(entry: string, group: string, what: string, deviceId: string, sink: IndexSink): void {
  sink.put(entry, deviceId)
  sink.count(group, what, 1)
}

function leave(entry: string, group: string, what: string, deviceId: string, sink: IndexSink): void {
  sink.delete(entry, deviceId)
  sink.count(group, what, -1)
}

interface AttributePlaces {
  readonly entries: ReadonlySet<string>
  readonly counts: readonly (readonly [group: string, what: string])[]
}

const NO_ATTRIBUTES: AttributePlaces = { entries: new Set(), counts: [] }
const ODD_ATTRIBUTES: AttributePlaces = { entries: new Set([WIDE]), counts: [] }

function moveAttributes(
  from: AttributePlaces,
  to: AttributePlaces,
  fromState: string | undefined,
  toState: string | undefined,
  deviceId: string,
  sink: IndexSink,
): void {
  for (const entry of from.entries) if (!to.entries.has(entry)) sink.delete(entry, deviceId)
  for (const entry of to.entries) if (!from.entries.has(entry)) sink.put(entry, deviceId)
  const [wasWide, isWide] = [from.entries.has(WIDE), to.entries.has(WIDE)]
  if (wasWide !== isWide) sink.count(LEFT_OUT_COUNTS, 'wide', isWide ? 1 : -1)
  for (const [group, what] of from.counts) sink.count(group, countOf(what, fromState as string), -1)
  for (const [group, what] of to.counts) sink.count(group, countOf(what, toState as string), 1)
}

function attributesOf(indexed: Indexed | undefined, { state }: Placed): AttributePlaces {
  if (indexed === undefined) return NO_ATTRIBUTES
  if (state === undefined) return ODD_ATTRIBUTES
  return indexed.attributes === undefined
    ? NO_ATTRIBUTES
    : placesOf(JSON.parse(indexed.attributes) as JsonObject, state)
}

function placesOf(attributes: JsonObject, state: string): AttributePlaces {
  const names = Object.keys(attributes)
  if (names.length > MAX_ATTRIBUTES) return ODD_ATTRIBUTES
  const entries = new Set<string>()
  const counts: [string, string][] = []
  for (const name of names) {
    const value = attributes[name] as Json
    if (name.length > MAX_NAME || (Array.isArray(value) && value.length > MAX_ATTRIBUTES)) return ODD_ATTRIBUTES
    const group = attributeGroup(name)
    counts.push([group, PRESENT])
    const elements = Array.isArray(value) && value.length > 0 ? value : [value]
    const counted = new Set<string>()
    for (const element of elements) {
      const isScalar = typeof element !== 'object' || element === null
      entries.add(isScalar ? attributeEntry(group, element, state) : `${group}\0${OTHER}\0${state}`)
      // An empty list is counted as a value of its own.
      const what = isScalar || (element === value && Array.isArray(value)) ? valueCount(element) : undefined
      counted.add(what ?? UNCOUNTED)
    }
    if (counted.has(UNCOUNTED)) {
      counts.push([group, UNCOUNTED])
      continue
    }
    for (const what of counted) counts.push([group, what])
    if (Array.isArray(value)) counts.push([group, LISTS])
  }
  return { entries, counts }
}
