import { type Field, MAX_FIELD_DEPTH, valueOf } from '../../contract/field.ts'
import { type Json, viewOf } from '../../contract/json.ts'
import { decodeStatus, type Status } from '../../contract/status.ts'

/** The wanted members of one object. */
interface Level {
  /** `key`: the bytes of the name in JSON, quotes included. */
  readonly members: { readonly key: Buffer; slots: number[]; level: Level | undefined }[]
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d

/** The text is not in the form that `HeldStatus.text` writes. */
class NotCanonical extends Error {}
const NOT_CANONICAL = new NotCanonical('not as HeldStatus.text writes it')

/**
 * Picks fields out of the JSON of stored statuses without parsing all of it: members that are not wanted are passed over,
 * and what follows the last wanted one is not looked at. That is a tenth of the time of JSON.parse. A text that
 * `HeldStatus.text` did not write (there may be other writers of the changelog) is parsed. Of members of the same name, which
 * no `HeldStatus.text` writes, either may count.
 */
export class StoredFields {
  readonly #fields: readonly Field[]
  readonly #top: Level = { members: [] }
  /** The slot of each field, and of its second meaning, which counts when the first has no value. */
  readonly #places: { readonly first: number; readonly second: number | undefined }[]
  readonly #picked: (Json | undefined)[] = []
  readonly #parseAll: boolean
  #bytes: Buffer = Buffer.alloc(0)
  /** The last skipped text has a backslash. */
  #escaped = false
  /** Nesting of the last skipped value. */
  #deepest = 0

  constructor(fields: readonly Field[]) {
    this.#fields = fields
    this.#parseAll = fields.some((field) => field.kind === 'attribute' && field.path.includes('.'))
    this.#places = this.#parseAll ? [] : fields.map((field) => this.#placeOf(field))
  }

  /** Returns the values in the order of the fields. Foreign bytes that are no JSON have none. */
  read(status: Uint8Array): (Json | undefined)[] {
    if (this.#fields.length === 0) return []
    if (this.#parseAll || status[0] !== OPEN_OBJECT) return this.#parse(status)
    const picked = this.#picked
    picked.fill(undefined)
    this.#bytes = viewOf(status)
    try {
      this.#pick(this.#top, 0)
    } catch (error) {
      if (error instanceof NotCanonical || error instanceof SyntaxError) return this.#parse(status)
      throw error
    }
    return this.#places.map(({ first, second }) => {
      const value = picked[first]
      return value === undefined && second !== undefined ? picked[second] : value
    })
  }

  #parse(status: Uint8Array): (Json | undefined)[] {
    const parsed = parsedStatus(status)
    return this.#fields.map((field) => (parsed === undefined ? undefined : valueOf(field, parsed)))
  }

  #placeOf(field: Field): { first: number; second: number | undefined } {
    const path = pathOf(field)
    const second = field.kind === 'reported' && field.timed !== undefined ? ['reported', field.timed, 'at'] : undefined
    return { first: this.#want(path), second: second === undefined ? undefined : this.#want(second) }
  }

  /** Returns the slot for the value at `path`. */
  #want(path: readonly string[]): number {
    const slot = this.#picked.push(undefined) - 1
    let level = this.#top
    for (const [i, name] of path.entries()) {
      const key = Buffer.from(JSON.stringify(name))
      let member = level.members.find((known) => known.key.equals(key))
      if (member === undefined) level.members.push((member = { key, slots: [], level: undefined }))
      if (i === path.length - 1) member.slots.push(slot)
      else level = member.level ??= { members: [] }
    }
    return slot
  }

  /**
   * Reads the object at `at` up to its last wanted member. Returns where it ends, or -1 when it was not read to its
   * end.
   */
  #pick(level: Level, at: number): number {
    const bytes = this.#bytes
    if (bytes[at] !== OPEN_OBJECT) return this.#skip(at)
    if (bytes[at + 1] === CLOSE_OBJECT) return at + 2
    let left = level.members.length
    let i = at + 1
    for (;;) {
      if (bytes[i] !== QUOTE) throw NOT_CANONICAL
      const keyEnd = this.#skipText(i)
      if (bytes[keyEnd] !== COLON) throw NOT_CANONICAL
      const member = find(level, bytes, i, keyEnd)
      i = keyEnd + 1
      if (member === undefined) {
        // `HeldStatus.text` escapes names as the wanted names are escaped. Other programs may write "a" as "\\u0061".
        if (this.#escaped) throw NOT_CANONICAL
        i = this.#skip(i)
      } else {
        const began = i
        i = member.level === undefined ? this.#skip(i) : this.#pick(member.level, i)
        if (member.slots.length > 0) {
          if (member.level !== undefined) i = this.#skip(began)
          const value = this.#value(began, i)
          for (const slot of member.slots) this.#picked[slot] = value
        }
        if (--left === 0) return -1
        if (i < 0) i = this.#skip(began)
      }
      if (bytes[i] === CLOSE_OBJECT) return i + 1
      if (bytes[i++] !== COMMA) throw NOT_CANONICAL
    }
  }

  #value(from: number, to: number): Json {
    const bytes = this.#bytes
    const first = bytes[from] as number
    // See `bounded`.
    if ((first === OPEN_OBJECT || first === OPEN_ARRAY) && this.#deepest > MAX_FIELD_DEPTH) return null
    if (first === QUOTE && !this.#escaped) return bytes.toString('utf8', from + 1, to - 1)
    const number = shortNumber(bytes, from, to)
    if (!Number.isNaN(number)) return number
    return JSON.parse(bytes.toString('utf8', from, to)) as Json
  }

  /** Returns where the value at `at` ends. */
  #skip(at: number): number {
    const bytes = this.#bytes
    const first = bytes[at] as number
    if (first === QUOTE) return this.#skipText(at)
    let i = at
    if (first !== OPEN_OBJECT && first !== OPEN_ARRAY) {
      for (; i < bytes.length; i++) {
        const byte = bytes[i] as number
        if (byte === COMMA || byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) return i
        if (byte <= 0x20) throw NOT_CANONICAL
      }
      throw NOT_CANONICAL
    }
    let depth = 0
    let deepest = 0
    const end = bytes.length
    for (; i < end; i++) {
      const byte = bytes[i] as number
      if (byte === QUOTE) {
        for (i++; i < end && bytes[i] !== QUOTE; i++) if (bytes[i] === BACKSLASH) i++
      } else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
        if (++depth > deepest) deepest = depth
      } else if ((byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) && --depth === 0) {
        this.#deepest = deepest
        return i + 1
      }
    }
    throw NOT_CANONICAL
  }

  /** Returns where the text with its quote at `at` ends, after its closing quote. */
  #skipText(at: number): number {
    const bytes = this.#bytes
    this.#escaped = false
    for (let i = at + 1; i < bytes.length; i++) {
      const byte = bytes[i] as number
      if (byte === QUOTE) return i + 1
      if (byte !== BACKSLASH) continue
      this.#escaped = true
      i++
    }
    throw NOT_CANONICAL
  }
}

function parsedStatus(status: Uint8Array): Status | undefined {
  try {
    return decodeStatus(status)
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

function pathOf(field: Field): string[] {
  if (field.kind === 'reported') return ['reported', field.metric, 'value']
  if (field.kind === 'attribute') return ['attributes', field.path]
  if (field.kind === 'group') return [field.group]
  return field.group === undefined ? [field.member] : [field.group, field.member]
}

function find(level: Level, bytes: Buffer, from: number, to: number): Level['members'][number] | undefined {
  const length = to - from
  members: for (const member of level.members) {
    const { key } = member
    if (key.length !== length) continue
    for (let k = 1; k < length; k++) if (key[k] !== bytes[from + k]) continue members
    return member
  }
  return undefined
}

const MINUS = 0x2d
const POINT = 0x2e
const ZERO = 0x30
/** An integer of so many digits is exact, and its quotient by a power of ten is rounded once, as JSON.parse rounds. */
const EXACT_DIGITS = 15

/** Reads the number that is all of the bytes, without a string. NaN for anything else, and for a long or exponential one. */
function shortNumber(bytes: Uint8Array, from: number, to: number): number {
  const first = bytes[from] === MINUS ? from + 1 : from
  if (to - first > EXACT_DIGITS || first === to) return Number.NaN
  // RFC 8259, section 6: a zero stands alone before the point.
  if (bytes[first] === ZERO && to - first > 1 && bytes[first + 1] !== POINT) return Number.NaN
  let value = 0
  let divisor = 0
  for (let at = first; at < to; at++) {
    const byte = bytes[at] as number
    if (byte === POINT && divisor === 0 && at > first && at < to - 1) {
      divisor = 1
    } else if (byte >= ZERO && byte <= ZERO + 9) {
      value = value * 10 + (byte - ZERO)
      divisor *= 10
    } else {
      return Number.NaN
    }
  }
  if (divisor > 0) value /= divisor
  return first > from ? -value : value
}
