import { viewOf } from './own-copy.ts'

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
/** By byte, 1: ASCII that stands for itself in a text. */
const PLAIN_TEXT = Uint8Array.from({ length: 256 }, (_, byte) =>
  Number(byte >= SPACE && byte < DELETE && byte !== QUOTE && byte !== BACKSLASH),
)
const LITERALS = ['true', 'false', 'null'].map((text) => Buffer.from(text))
/** Up to 2^53 an integer is exact, and so is its quotient by a power of ten up to 10^22, rounded once. */
const EXACT_DIGITS = 15
const POWERS_OF_TEN = Array.from({ length: EXACT_DIGITS + 1 }, (_, power) => 10 ** power)
/** A longer number is left to JSON.parse. */
const MAX_NUMBER_BYTES = 64

/** Reads JSON of a known layout where it stands: no text and no object is made of it. */
export class JsonScanner {
  #bytes: Buffer = Buffer.alloc(0)
  /** Of what comes next. */
  at = 0

  begin(bytes: Uint8Array): void {
    this.#bytes = viewOf(bytes)
    this.at = 0
  }

  get ended(): boolean {
    return this.at === this.#bytes.length
  }

  /** Goes past `expected` when that comes next; false, and stays, when it does not. */
  literal(expected: Uint8Array): boolean {
    const bytes = this.#bytes
    const start = this.at
    const length = expected.length
    if (start + length > bytes.length) return false
    for (let i = 0; i < length; i++) if (bytes[start + i] !== expected[i]) return false
    this.at = start + length
    return true
  }

  /** Goes past `expected`, of ASCII, when that comes next. */
  text(expected: string): boolean {
    const bytes = this.#bytes
    const start = this.at
    const length = expected.length
    if (start + length > bytes.length) return false
    for (let i = 0; i < length; i++) if (bytes[start + i] !== expected.charCodeAt(i)) return false
    this.at = start + length
    return true
  }

  /** Goes past `length` bytes when they are the same as those at `from`. */
  same(from: number, length: number): boolean {
    const bytes = this.#bytes
    const start = this.at
    if (start + length > bytes.length) return false
    for (let i = 0; i < length; i++) if (bytes[start + i] !== bytes[from + i]) return false
    this.at = start + length
    return true
  }

  /** Goes past what stands for itself in a text of JSON, ASCII at that. */
  skipPlainText(): void {
    const bytes = this.#bytes
    let at = this.at
    while (at < bytes.length && PLAIN_TEXT[bytes[at] as number] === 1) at++
    this.at = at
  }

  /** The next `length` bytes, when all of them stand for themselves in a text of JSON, ASCII at that. */
  takePlainText(length: number): string | undefined {
    const bytes = this.#bytes
    const start = this.at
    const end = start + length
    if (end > bytes.length) return undefined
    for (let i = start; i < end; i++) if (PLAIN_TEXT[bytes[i] as number] !== 1) return undefined
    this.at = end
    return this.slice(start, end)
  }

  /**
   * Goes past the object that comes next, as JSON.stringify writes it: false when none does, when it is nested deeper than
   * `depth`, or when there is an escape in it.
   */
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

  /** One without an escape. */
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

  /** Of ASCII. */
  slice(start: number, end: number): string {
    return this.#bytes.toString('latin1', start, end)
  }

  /** From `start` to the end. */
  rest(start: number): string {
    return this.#bytes.toString('utf8', start)
  }

  /** The number that comes next, the same as JSON.parse makes of it; NaN when none does, or not a finite or short one. */
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

  /** `mantissaEnd`: how far the number is known to be one. */
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
