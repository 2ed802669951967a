export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

export type JsonObject = { [name: string]: Json }

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * Nesting of objects and arrays in a payload, and so in each value of a status. All writers and readers of statuses share it:
 * if one took a value that another refuses, its device would begin anew. JSON.stringify fails at some thousands.
 */
export const MAX_DEPTH = 16

/** Whether objects and arrays are nested deeper than `depth`. Recurses no deeper itself. */
export function isDeeper(value: Json, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (depth === 0) return true
  return Object.values<Json>(value).some((inner) => isDeeper(inner, depth - 1))
}

/**
 * Whether a name anywhere in the JSON `text` has a backslash as a character. Such text must not be parsed: once V8 13.6
 * (Node 24) has met that name, JSON.parse takes other escaped names for it (`{"a":1,"\\n":1}` after `{"a":1,"\\\\":1}`),
 * so that one device's names would become another's. Linear in the text; for text that is no JSON the result means nothing.
 */
export function hasBackslashInName(text: string): boolean {
  if (!text.includes('\\')) return false
  for (let at = text.indexOf('"'); at >= 0; at = text.indexOf('"', at + 1)) {
    let backslash = false
    for (at++; at < text.length && text[at] !== '"'; at++) {
      if (text[at] !== '\\') continue
      at++
      if (text[at] === '\\' || (text[at] === 'u' && text.slice(at + 1, at + 5).toLowerCase() === '005c'))
        backslash = true
    }
    if (backslash && isName(text, at + 1)) return true
  }
  return false
}

/** Whether the string that ended before `at` is followed by a colon. */
function isName(text: string, at: number): boolean {
  let next = at
  while (text[next] === ' ' || text[next] === '\n' || text[next] === '\r' || text[next] === '\t') next++
  return text[next] === ':'
}

/** The cost of copying and writing a value, beside its characters. */
const VALUE_WORK = 128

/** Estimated cost of handling `value`, in bytes of JSON: many small values cost more than a long text. */
export function workOf(value: Json): number {
  if (typeof value === 'string') return VALUE_WORK + value.length
  if (typeof value !== 'object' || value === null) return VALUE_WORK
  let work = VALUE_WORK
  if (Array.isArray(value)) for (const element of value) work += workOf(element)
  else for (const name in value) work += name.length + workOf(value[name] as Json)
  return work
}

/** A copy to keep, in memory of its own: a view keeps the whole buffer, and `Buffer.from` copies into Node's 64 KiB pool. */
export function ownCopy(bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  copy.set(bytes)
  return copy
}

/** A device id in memory of its own: one that was cut out of a topic keeps the whole topic, of up to 64 KiB. */
export function ownDeviceId(deviceId: string): string {
  return Buffer.from(deviceId, 'latin1').toString('latin1')
}

/** The same bytes as a Buffer: `Buffer.from(bytes)` would copy them. */
export function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

const QUOTE = 0x22
const MINUS = 0x2d
const PLUS = 0x2b
const POINT = 0x2e
const ZERO = 0x30
const SMALL_E = 0x65
const LOWER_CASE = 0x20
const SPACE = 0x20
const BACKSLASH = 0x5c
const DELETE = 0x7f
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
/** 1 for each byte that is ASCII and unescaped in a JSON text. */
const PLAIN_TEXT = Uint8Array.from({ length: 256 }, (_, byte) =>
  Number(byte >= SPACE && byte < DELETE && byte !== QUOTE && byte !== BACKSLASH),
)
const LITERALS = ['true', 'false', 'null'].map((text) => Buffer.from(text))
/** An integer up to 2^53 is exact; its quotient by a power of ten up to 10^22 is rounded once, as JSON.parse rounds. */
const EXACT_DIGITS = 15
const POWERS_OF_TEN = Array.from({ length: EXACT_DIGITS + 1 }, (_, power) => 10 ** power)
/** A longer number is left to JSON.parse. */
const MAX_NUMBER_BYTES = 64

/** Reads JSON of a known layout in place: it makes no string and no object. */
export class JsonScanner {
  #bytes: Buffer = Buffer.alloc(0)
  at = 0

  begin(bytes: Uint8Array): void {
    this.#bytes = viewOf(bytes)
    this.at = 0
  }

  get ended(): boolean {
    return this.at === this.#bytes.length
  }

  /** Skips `expected`; false, without moving, when something else comes next. */
  literal(expected: Uint8Array): boolean {
    const bytes = this.#bytes
    const start = this.at
    const length = expected.length
    if (start + length > bytes.length) return false
    for (let i = 0; i < length; i++) if (bytes[start + i] !== expected[i]) return false
    this.at = start + length
    return true
  }

  /** Skips `expected`, which is ASCII. */
  text(expected: string): boolean {
    const bytes = this.#bytes
    const start = this.at
    const length = expected.length
    if (start + length > bytes.length) return false
    for (let i = 0; i < length; i++) if (bytes[start + i] !== expected.charCodeAt(i)) return false
    this.at = start + length
    return true
  }

  /** Skips `length` bytes if they equal those at `from`. */
  same(from: number, length: number): boolean {
    const bytes = this.#bytes
    const start = this.at
    if (start + length > bytes.length) return false
    for (let i = 0; i < length; i++) if (bytes[start + i] !== bytes[from + i]) return false
    this.at = start + length
    return true
  }

  /** Skips unescaped ASCII of a text. */
  skipPlainText(): void {
    const bytes = this.#bytes
    let at = this.at
    while (at < bytes.length && PLAIN_TEXT[bytes[at] as number] === 1) at++
    this.at = at
  }

  /** The next `length` bytes, if they are unescaped ASCII of a text. */
  takePlainText(length: number): string | undefined {
    const bytes = this.#bytes
    const start = this.at
    const end = start + length
    if (end > bytes.length) return undefined
    for (let i = start; i < end; i++) if (PLAIN_TEXT[bytes[i] as number] !== 1) return undefined
    this.at = end
    return this.slice(start, end)
  }

  /** Skips an object as JSON.stringify writes it; false when there is none, or it is deeper than `depth` or has an escape. */
  object(depth: number): boolean {
    return this.#bytes[this.at] === OPEN_OBJECT && this.#members(CLOSE_OBJECT, depth)
  }

  #members(close: number, depth: number): boolean {
    const bytes = this.#bytes
    if (depth === 0) return false
    if (bytes[++this.at] === close) {
      this.at++
      return true
    }
    for (;;) {
      if (close === CLOSE_OBJECT && !(this.#string() && bytes[this.at++] === COLON)) return false
      if (!this.#value(depth - 1)) return false
      const next = bytes[this.at++]
      if (next === close) return true
      if (next !== COMMA) return false
    }
  }

  #value(depth: number): boolean {
    const first = this.#bytes[this.at]
    if (first === QUOTE) return this.#string()
    if (first === OPEN_OBJECT) return this.#members(CLOSE_OBJECT, depth)
    if (first === OPEN_ARRAY) return this.#members(CLOSE_ARRAY, depth)
    return !Number.isNaN(this.number()) || LITERALS.some((literal) => this.literal(literal))
  }

  /** Skips a string without escapes. */
  #string(): boolean {
    const bytes = this.#bytes
    if (bytes[this.at] !== QUOTE) return false
    let at = this.at + 1
    for (; at < bytes.length && bytes[at] !== QUOTE; at++) {
      if ((bytes[at] as number) < SPACE || bytes[at] === BACKSLASH) return false
    }
    this.at = at + 1
    return at < bytes.length
  }

  /** ASCII only. */
  slice(start: number, end: number): string {
    return this.#bytes.toString('latin1', start, end)
  }

  rest(start: number): string {
    return this.#bytes.toString('utf8', start)
  }

  /** The next number, as JSON.parse reads it; NaN when there is none, or it is infinite or very long. */
  number(): number {
    const bytes = this.#bytes
    let at = this.at
    const negative = bytes[at] === MINUS
    if (negative) at++
    const first = at
    let value = 0
    // RFC 8259, section 6: a zero stands alone before the point.
    if (bytes[at] === ZERO) at++
    else for (; isDigit(bytes[at]); at++) value = value * 10 + ((bytes[at] as number) - ZERO)
    if (at === first) return Number.NaN
    let digits = at - first
    let decimals = 0
    if (bytes[at] === POINT) {
      const point = ++at
      for (; isDigit(bytes[at]); at++) value = value * 10 + ((bytes[at] as number) - ZERO)
      decimals = at - point
      if (decimals === 0) return Number.NaN
      digits += decimals
    }
    if (digits > EXACT_DIGITS || ((bytes[at] as number) | LOWER_CASE) === SMALL_E) return this.#long(at)
    this.at = at
    if (decimals > 0) value /= POWERS_OF_TEN[decimals] as number
    return negative ? -value : value
  }

  /** `mantissaEnd`: where its exponent or its further digits begin. */
  #long(mantissaEnd: number): number {
    const bytes = this.#bytes
    let end = mantissaEnd
    if (((bytes[end] as number) | LOWER_CASE) === SMALL_E) {
      end++
      if (bytes[end] === MINUS || bytes[end] === PLUS) end++
      const first = end
      while (isDigit(bytes[end])) end++
      if (end === first) return Number.NaN
    }
    if (end - this.at > MAX_NUMBER_BYTES) return Number.NaN
    const value = Number(String.fromCharCode(...bytes.subarray(this.at, end)))
    if (!Number.isFinite(value)) return Number.NaN
    this.at = end
    return value
  }
}

export function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= ZERO && byte <= ZERO + 9
}

/** The first `most` characters, or one fewer, so that no surrogate pair is split. */
export function beginningOf(text: string, most: number): string {
  if (text.length <= most) return text
  return text.slice(0, (text.charCodeAt(most - 1) & 0xfc00) === 0xd800 ? most - 1 : most)
}
