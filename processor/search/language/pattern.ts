/** The cost of a comparison, in steps of about a byte of JSON. */
export interface Work {
  steps: number
}

/** A code point, or any one. */
type Wanted = number | typeof ANY_ONE
const ANY_ONE = undefined

/** Steps that a character costs in the slowest patterns: in `indexOf`, and in an automaton of 32 places. */
const SEARCH_COST = 2
const CHARACTER_COST = 2

/** A pattern with `*` and `?`, prepared for many texts. */
export class Pattern {
  /** Adds its cost to `work`: about the length of the text, for patterns within the bounds of a query. */
  readonly fits: (text: string, work: Work) => boolean

  constructor(pattern: string) {
    const pieces = piecesOf(pattern)
    if (pieces.every((piece) => piece.every(isWhole))) {
      // Then they are found whatever code units a text has.
      const literals = pieces.map((piece) => new Literal(String.fromCodePoint(...(piece as number[]))))
      this.fits = (text, work) => fit(literals, text, work)
    } else {
      const automata = pieces.map((piece) => new Automaton(piece))
      this.fits = (text, work) => fit(automata, codePoints.read(text), work)
    }
  }
}

/** A part of a pattern without `*`. It has one length, whatever it fits. */
interface Piece<Text> {
  readonly length: number
  isAt(text: Text, at: number, work: Work): boolean
  /** Where the piece is first found from `from` on, or -1. */
  find(text: Text, from: number, work: Work): number
}

/** `pieces` stand before, between and after the `*`; each of those between is placed where it is first found. */
function fit<Text extends { readonly length: number }>(
  pieces: readonly Piece<Text>[],
  text: Text,
  work: Work,
): boolean {
  const [first, ...others] = pieces as [Piece<Text>, ...Piece<Text>[]]
  const last = others.pop()
  if (!first.isAt(text, 0, work)) return false
  if (last === undefined) return text.length === first.length
  const end = text.length - last.length
  let at = first.length
  if (at > end || !last.isAt(text, end, work)) return false
  for (const piece of others) {
    const found = piece.find(text, at, work)
    if (found < 0) return false
    at = found + piece.length
  }
  return at <= end
}

function piecesOf(pattern: string): Wanted[][] {
  let piece: Wanted[] = []
  const pieces = [piece]
  let escaped = false
  for (const character of pattern) {
    if (!escaped && character === '\\') escaped = true
    else if (!escaped && character === '*') pieces.push((piece = []))
    else {
      piece.push(!escaped && character === '?' ? ANY_ONE : character.codePointAt(0))
      escaped = false
    }
  }
  // Between the stars of `**` is nothing. An empty piece at an end lets the text begin or end with anything.
  return pieces.filter((each, i) => each.length > 0 || i === 0 || i === pieces.length - 1)
}

/** Whether it is a whole character, not half of one. */
function isWhole(wanted: Wanted): boolean {
  return wanted !== ANY_ONE && (wanted < 0xd800 || wanted > 0xdfff)
}

/** The code points of a text: the first `length` of `at`. */
class CodePoints {
  at = new Int32Array(0)
  length = 0

  read(text: string): this {
    if (this.at.length < text.length) this.at = new Int32Array(text.length)
    this.length = 0
    for (let i = 0; i < text.length; i++) {
      const point = text.codePointAt(i) as number
      this.at[this.length++] = point
      if (point > 0xffff) i++
    }
    return this
  }
}

/** Shared by all comparisons, as memory for each would cost more than the comparison. */
const codePoints = new CodePoints()

class Literal implements Piece<string> {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  get length(): number {
    return this.#text.length
  }

  isAt(text: string, at: number, work: Work): boolean {
    work.steps += this.#text.length
    return text.startsWith(this.#text, at)
  }

  find(text: string, from: number, work: Work): number {
    const found = text.indexOf(this.#text, from)
    work.steps += SEARCH_COST * ((found < 0 ? text.length : found + this.#text.length) - from)
    return found
  }
}

/**
 * Matches characters with `?` among them (Shift-And, Baeza-Yates and Gonnet 1992): bit i tells that the first i + 1 of
 * them end here. A step handles 32 bits.
 */
class Automaton implements Piece<CodePoints> {
  readonly #wanted: readonly Wanted[]
  readonly #words: number
  /** Bit sets of places, `#words` each: first the places of `?`, then those of each wanted character. */
  readonly #places: Int32Array
  /** By code point: where the character's set begins in `#places`. */
  readonly #beginnings = new Map<number, number>()
  /** The same for ASCII. */
  readonly #ascii = new Int32Array(128)

  constructor(wanted: readonly Wanted[]) {
    this.#wanted = wanted
    this.#words = Math.ceil(wanted.length / 32)
    for (const point of new Set(wanted)) {
      if (point === ANY_ONE) continue
      const beginning = (this.#beginnings.size + 1) * this.#words
      this.#beginnings.set(point, beginning)
      if (point < this.#ascii.length) this.#ascii[point] = beginning
    }
    this.#places = new Int32Array((this.#beginnings.size + 1) * this.#words)
    for (const [i, point] of wanted.entries()) {
      for (const beginning of point === ANY_ONE ? [0, ...this.#beginnings.values()] : [this.#begin(point)]) {
        const word = beginning + (i >>> 5)
        this.#places[word] = (this.#places[word] as number) | (1 << (i & 31))
      }
    }
  }

  get length(): number {
    return this.#wanted.length
  }

  isAt(text: CodePoints, at: number, work: Work): boolean {
    if (at + this.#wanted.length > text.length) return false
    work.steps += this.#wanted.length
    return this.#wanted.every((point, i) => point === ANY_ONE || point === text.at[at + i])
  }

  find({ at: text, length }: CodePoints, from: number, work: Work): number {
    const words = this.#words
    const places = this.#places
    const ascii = this.#ascii
    const ended = new Int32Array(words)
    const last = this.#wanted.length - 1
    const lastBit = 1 << (last & 31)
    let found = -1
    let at = from
    while (at < length && found < 0) {
      const point = text[at] as number
      const beginning = point < 128 ? (ascii[point] as number) : this.#begin(point)
      let carry = 1
      for (let word = 0; word < words; word++) {
        const before = ended[word] as number
        ended[word] = ((before << 1) | carry) & (places[beginning + word] as number)
        carry = before >>> 31
      }
      if (((ended[words - 1] as number) & lastBit) !== 0) found = at - last
      at++
    }
    work.steps += (words + CHARACTER_COST) * (at - from)
    return found
  }

  #begin(point: number): number {
    return (point < this.#ascii.length ? this.#ascii[point] : this.#beginnings.get(point)) ?? 0
  }
}

/** The text before the first wildcard of a pattern. */
export function literalPrefix(pattern: string): string {
  const [literal] = /^(?:\\.|[^\\*?])*/s.exec(pattern) ?? ['']
  return literal.replace(/\\(.)/gs, '$1')
}
