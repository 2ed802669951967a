import { type Field, parseField } from './field.ts'
import { beginningOf, type Json } from './json.ts'

/** The order of a list. Equal devices go by id, ascending. */
export interface Order {
  readonly field: Field
  readonly descending: boolean
}

/** Reads a field name, with `-` before it for descending. Undefined: it is no field, or a group of fields. */
export function parseOrder(text: string): Order | undefined {
  const descending = text.startsWith('-')
  const field = parseField(descending ? text.slice(1) : text)
  return field === undefined || field.kind === 'group' ? undefined : { field, descending }
}

export function printOrder({ field, descending }: Order): string {
  return descending ? `-${field.name}` : field.name
}

/** Characters of a text that count for the order. Texts that agree in them go by device id, so a cursor has a bound. */
const MAX_KEY_TEXT = 128

/**
 * Numbers come first, then texts (by code points), false, true, null, then lists and objects, which are equal. A
 * missing value comes last in either direction.
 */
export type SortKey =
  | readonly [rank: typeof NUMBER, value: number]
  | readonly [rank: typeof TEXT, value: string]
  | readonly [rank: typeof FALSE | typeof TRUE | typeof NULL | typeof OTHER | typeof MISSING]

const NUMBER = 0
const TEXT = 1
const FALSE = 2
const TRUE = 3
const NULL = 4
const OTHER = 5
const MISSING = 6

export function sortKey(value: Json | undefined): SortKey {
  if (value === undefined) return [MISSING]
  if (value === null) return [NULL]
  if (typeof value === 'number') return [NUMBER, value]
  if (typeof value === 'boolean') return [value ? TRUE : FALSE]
  if (typeof value === 'string') return [TEXT, beginningOf(value, MAX_KEY_TEXT)]
  return [OTHER]
}

/** Reads the key from the JSON of a cursor. Undefined: it is no key. */
export function sortKeyOf(json: unknown): SortKey | undefined {
  if (!Array.isArray(json)) return undefined
  const [rank, value] = json as unknown[]
  if (rank === NUMBER) return json.length === 2 && Number.isFinite(value) ? [NUMBER, value as number] : undefined
  if (rank === TEXT)
    return json.length === 2 && typeof value === 'string' ? [TEXT, beginningOf(value, MAX_KEY_TEXT)] : undefined
  const bare = rank === FALSE || rank === TRUE || rank === NULL || rank === OTHER || rank === MISSING
  return bare && json.length === 1 ? [rank] : undefined
}

/** Compares two pairs of key and device id: negative, zero or positive. */
export function compareInOrder(descending: boolean, a: SortKey, aId: string, b: SortKey, bId: string): number {
  const difference = compareKeys(a, b)
  if (difference === 0) return aId < bId ? -1 : aId > bId ? 1 : 0
  return descending && a[0] !== MISSING && b[0] !== MISSING ? -difference : difference
}

function compareKeys(a: SortKey, b: SortKey): number {
  if (a[0] !== b[0]) return a[0] - b[0]
  if (a[0] === NUMBER) return a[1] < (b[1] as number) ? -1 : a[1] > (b[1] as number) ? 1 : 0
  return a[0] === TEXT ? compareText(a[1], b[1] as string) : 0
}

const SURROGATE = /[\ud800-\udfff]/

/** Compares by code points, the order of the UTF-8 bytes. */
export function compareText(a: string, b: string): number {
  if (a === b) return 0
  // The order of UTF-16 differs only where surrogates meet the characters above them.
  if (!SURROGATE.test(a) && !SURROGATE.test(b)) return a < b ? -1 : 1
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
