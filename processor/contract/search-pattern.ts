/** What a comparison has cost, in steps of about a byte of JSON handled. */
export interface Work {
  steps: number
}

/** A character, or `?` when it is an object: so it differs from the character. */
type Wanted = string | typeof ONE
const ONE = { one: true } as const

/** A text by characters: code points. Of one without surrogates its units are those. */
type Characters = string | readonly string[]

/** What `indexOf` costs for a character of the text where the pattern is made to be slow, steps. */
const SEARCH_COST = 2

const SURROGATES = /[\ud800-\udfff]/

/** A pattern with `*` and `?`, made ready to be compared with many texts. */
export class Pattern {
  /** What stands before, between and after the `*`. */
  readonly #pieces: readonly Piece[]
  /** Without `?`, and of whole characters, which are then found in a text whatever its units are. */
  readonly #isPlain: boolean

  constructor(pattern: string) {
    const pieces = piecesOf(pattern)
    this.#isPlain = pieces.every((piece) => piece.every(isWhole))
    this.#pieces = pieces.map((wanted) => new Piece(wanted, this.#isPlain))
  }

  /** A time of the order of the text's length, for a pattern as long as queries may have. Adds what it took to `work`. */
  fits(text: string, work: Work): boolean {
    const characters = this.#isPlain || !SURROGATES.test(text) ? text : Array.from(text)
    const [first, ...others] = this.#pieces as [Piece, ...Piece[]]
    const last = others.pop()
    if (!first.isAt(characters, 0, work)) return false
    if (last === undefined) return characters.length === first.length
    const end = characters.length - last.length
    let at = first.length
    if (at > end || !last.isAt(characters, end, work)) return false
    for (const piece of others) {
      const found = piece.find(characters, at, work)
      if (found < 0) return false
      at = found + piece.length
    }
    return at <= end
  }
}

function isWhole(wanted: Wanted): boolean {
  return typeof wanted === 'string' && wanted.isWellFormed()
}

function piecesOf(pattern: string): Wanted[][] {
  let piece: Wanted[] = []
  const pieces = [piece]
  let escaped = false
  for (const character of pattern) {
    if (!escaped && character === '\\') escaped = true
    else if (!escaped && character === '*') pieces.push((piece = []))
    else {
      piece.push(!escaped && character === '?' ? ONE : character)
      escaped = false
    }
  }
  // Of `**` nothing is between; at the ends nothing means that it may begin and end with anything.
  return pieces.filter((each, i) => each.length > 0 || i === 0 || i === pieces.length - 1)
}

/** What stands together in a pattern: it has one length, whatever it fits. */
class Piece {
  /** In units of the text where the pattern is plain, else in characters. */
  readonly length: number
  readonly #wanted: readonly Wanted[]
  /** Undefined: it has a `?`. */
  readonly #literal: string | undefined
  #automaton: Automaton | undefined

  constructor(wanted: readonly Wanted[], isPlain: boolean) {
    this.#wanted = wanted
    const literal = wanted.filter((each) => typeof each === 'string')
    this.#literal = literal.length < wanted.length ? undefined : literal.join('')
    this.length = isPlain ? (this.#literal as string).length : wanted.length
  }

  isAt(text: Characters, at: number, work: Work): boolean {
    if (at + this.length > text.length) return false
    work.steps += this.length
    if (typeof text === 'string' && this.#literal !== undefined) return text.startsWith(this.#literal, at)
    return this.#wanted.every((wanted, i) => wanted === ONE || wanted === text[at + i])
  }

  /** Where it is first found from `from` on; -1: nowhere. */
  find(text: Characters, from: number, work: Work): number {
    if (typeof text === 'string' && this.#literal !== undefined) {
      const found = text.indexOf(this.#literal, from)
      work.steps += SEARCH_COST * ((found < 0 ? text.length : found + this.length) - from)
      return found
    }
    this.#automaton ??= new Automaton(this.#wanted)
    return this.#automaton.find(text, from, work)
  }
}

/**
 * Finds characters of which some may be any (Shift-And, Baeza-Yates and Gonnet 1992): bit i tells that the first i + 1 of
 * them end here. 32 are looked at in one step.
 */
class Automaton {
  readonly #length: number
  readonly #words: number
  /** By character: the places where it may stand. */
  readonly #places = new Map<string, Uint32Array>()
  /** Of all other characters. */
  readonly #anywhere: Uint32Array

  constructor(wanted: readonly Wanted[]) {
    this.#length = wanted.length
    this.#words = Math.ceil(wanted.length / 32)
    this.#anywhere = new Uint32Array(this.#words)
    for (const [i, each] of wanted.entries()) if (each === ONE) mark(this.#anywhere, i)
    for (const [i, each] of wanted.entries()) {
      if (typeof each !== 'string') continue
      let places = this.#places.get(each)
      if (places === undefined) this.#places.set(each, (places = this.#anywhere.slice()))
      mark(places, i)
    }
  }

  find(text: Characters, from: number, work: Work): number {
    const ended = new Uint32Array(this.#words)
    const last = this.#length - 1
    for (let at = from; at < text.length; at++) {
      const places = this.#places.get(text[at] as string) ?? this.#anywhere
      let carry = 1
      for (let word = 0; word < ended.length; word++) {
        const before = ended[word] as number
        ended[word] = ((before << 1) | carry) & (places[word] as number)
        carry = before >>> 31
      }
      work.steps += this.#words
      if (((ended[last >>> 5] as number) >>> (last & 31)) & 1) return at - last
    }
    return -1
  }
}

function mark(bits: Uint32Array, i: number): void {
  bits[i >>> 5] = (bits[i >>> 5] as number) | (1 << (i & 31))
}

/** What stands before the first wildcard of a pattern. */
export function literalPrefix(pattern: string): string {
  const [literal] = /^(?:\\.|[^\\*?])*/s.exec(pattern) ?? ['']
  return literal.replace(/\\(.)/gs, '$1')
}
