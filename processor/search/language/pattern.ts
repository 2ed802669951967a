/** The cost of a comparison, in steps of about a byte of JSON. */
export interface Work {
  steps: number
}

/** A code point, or any one. */
type Wanted = number | typeof ANY_ONE
const ANY_ONE = undefined

/** What a character costs where the pattern is made to be slow, steps: by `indexOf`, and beside 32 places of an automaton. */
const SEARCH_COST = 2
const CHARACTER_COST = 2

/** A pattern with `*` and `?`, made ready to be compared with many texts. */
export class Pattern {
  /** Adds what it took to `work`: of the order of the text's length, for a pattern as long as queries may have. */
  readonly fits: (text: string, work: Work) => boolean

  constructor(pattern: string) {
    const pieces = piecesOf(pattern)
    if (pieces.every((piece) => piece.every(isWhole))) {
      // Then they are found in a text whatever its units are.
      const literals = pieces.map((piece) => new Literal(String.fromCodePoint(...(piece as number[]))))
      this.fits = (text, work) => fit(literals, text, work)
    } else {
      const automata = pieces.map((piece) => new Automaton(piece))
      this.fits = (text, work) => fit(automata, codePoints.read(text), work)
    }
  }
}

/** What stands together in a pattern: it has one length, whatever it fits. */
interface Piece<Text> {
  readonly length: number
  isAt(text: Text, at: number, work: Work): boolean
  /** Where it is first found from `from` on; -1: nowhere. */
  find(text: Text, from: number, work: Work): number
}

/** `pieces`: what stands before, between and after the `*`; of those between, each where it is first found. */
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
  // Of `**` nothing is between; at the ends nothing means that it may begin and end with anything.
  return pieces.filter((each, i) => each.length > 0 || i === 0 || i === pieces.length - 1)
}

/** One character, and not half of one. */
function isWhole(wanted: Wanted): boolean {
  return wanted !== ANY_ONE && (wanted < 0xd800 || wanted > 0xdfff)
}

/** A text by code points: the first `length` of `at`. */
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

/** Of the text that is being compared: memory for each would cost more than the comparison. */
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
 * Characters of which some may be any (Shift-And, Baeza-Yates and Gonnet 1992): bit i tells that the first i + 1 of them
 * end here. 32 are looked at in one step.
 */
class Automaton implements Piece<CodePoints> {
  readonly #wanted: readonly Wanted[]
  readonly #words: number
  /** Places where characters may stand, `#words` each: first those where any may, then those of each that is wanted. */
  readonly #places: Int32Array
  /** By code point: where in `#places` those of the character begin. */
  readonly #beginnings = new Map<number, number>()
  /** The same of ASCII. */
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

/** What stands before the first wildcard of a pattern. */
export function literalPrefix(pattern: string): string {
  const [literal] = /^(?:\\.|[^\\*?])*/s.exec(pattern) ?? ['']
  return literal.replace(/\\(.)/gs, '$1')
}
