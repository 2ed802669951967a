import type { Json } from '../contract/json.ts'
import { isDigit, JsonScanner } from '../contract/json-scanner.ts'
import { isSeq, partsOf, type Reading, readingOf } from './message.ts'

const QUOTE = 0x22
const BACKSLASH = 0x5c
const MINUS = 0x2d
/** Of numbers, after the first digit: `0-9 . e E + -`. */
const NUMBER_BYTES = new Set(Buffer.from('0123456789.eE+-'))

/** Layouts kept; at the bound the oldest goes. A message of none of them is compared with each up to where it differs. */
const MAX_LAYOUTS = 8
/** Numbers, and bytes, of a message whose layout is kept. */
const MAX_NUMBERS = 64
const MAX_LAYOUT_BYTES = 4096
/** Of messages of no known layout, one in so many is learnt from. */
const LEARN_EVERY = 256

/** How devices of one kind write their messages, to the byte, but for the numbers. */
interface Layout {
  /** What stands before each number, and after the last. */
  readonly literals: readonly Uint8Array[]
  /** Which of the numbers is `ts`, and `seq`; undefined: there is none. */
  readonly ts: number | undefined
  readonly seq: number | undefined
  readonly names: readonly string[]
  /** For each name: which of the numbers is its value; undefined: the value is the same in all, and in `constants`. */
  readonly slots: readonly (number | undefined)[]
  readonly constants: readonly Json[]
}

/**
 * Reads messages that differ from an earlier one in their numbers only, as nearly all do, in a quarter of the time: what
 * is between the numbers was checked when it first came. What comes out is what `decodeMessages` makes of the text.
 */
export class Layouts {
  readonly #known: Layout[] = []
  #latest = 0
  #oldest = 0
  #unknown = 0
  readonly #scanner = new JsonScanner()
  readonly #numbers: number[] = Array.from({ length: MAX_NUMBERS }, () => 0)

  /** Undefined: of no known layout, or with a number that the message may not have. */
  read(bytes: Uint8Array, receivedAt: number): Reading | undefined {
    const known = this.#known
    for (let i = 0, k = this.#latest; i < known.length; i++, k = k + 1 === known.length ? 0 : k + 1) {
      const layout = known[k] as Layout
      if (!this.#scan(bytes, layout)) continue
      this.#latest = k
      const { ts, seq, names, slots, constants } = layout
      const numbers = this.#numbers
      const number = seq === undefined ? undefined : (numbers[seq] as number)
      if (number !== undefined && !isSeq(number)) return undefined
      const values = constants.slice()
      for (let n = 0; n < slots.length; n++) {
        const slot = slots[n]
        if (slot !== undefined) values[n] = numbers[slot] as number
      }
      const parts = { ts: ts === undefined ? undefined : (numbers[ts] as number), seq: number, names, values }
      return readingOf(parts, receivedAt)
    }
    return undefined
  }

  #scan(bytes: Uint8Array, { literals }: Layout): boolean {
    const scanner = this.#scanner
    scanner.begin(bytes)
    const last = literals.length - 1
    for (let i = 0; i < last; i++) {
      if (!scanner.literal(literals[i] as Uint8Array)) return false
      const number = scanner.number()
      if (Number.isNaN(number)) return false
      this.#numbers[i] = number
    }
    return scanner.literal(literals[last] as Uint8Array) && scanner.ended
  }

  /** A message that `read` did not know, and that is a good one. */
  offer(bytes: Uint8Array): void {
    if (this.#unknown++ % LEARN_EVERY !== 0 || bytes.length > MAX_LAYOUT_BYTES) return
    const layout = layoutOf(bytes)
    if (layout === undefined) return
    this.#latest = this.#known.length < MAX_LAYOUTS ? this.#known.length : this.#oldest++ % MAX_LAYOUTS
    this.#known[this.#latest] = layout
  }
}

/** Of valid JSON. Undefined when a number is no value of its own: in an array, or under a name that comes twice. */
function layoutOf(bytes: Uint8Array): Layout | undefined {
  const literals = literalsOf(bytes)
  if (literals === undefined) return undefined
  const parts = partsOf(JSON.parse(probeOf(literals)) as Json, 1)
  if (typeof parts === 'string') return undefined
  const { ts, seq, names, values } = parts
  if (
    (ts !== undefined && typeof ts !== 'number') ||
    values.some((value) => typeof value === 'object' && value !== null)
  )
    return undefined
  const slots = values.map((value) => (typeof value === 'number' ? value : undefined))
  const used = [ts, seq, ...slots].filter((slot) => slot !== undefined)
  if (used.length !== literals.length - 1) return undefined
  // Where all values are numbers, copies hold them as such, and no object for each.
  const constants = values.map((value) => (typeof value === 'number' ? 0.5 : value))
  return { literals, ts, seq, names, slots, constants }
}

/** The message with each number replaced by how many stand before it, so that what is parsed shows which one is what. */
function probeOf(literals: readonly Uint8Array[]): string {
  const texts = literals.map((literal) => Buffer.from(literal).toString())
  return texts.map((text, i) => (i === 0 ? text : String(i - 1) + text)).join('')
}

/** What stands between the numbers of valid JSON. Undefined: too many numbers, or an escape, which may hide a quote. */
function literalsOf(bytes: Uint8Array): Uint8Array[] | undefined {
  const literals: Uint8Array[] = []
  let from = 0
  let quoted = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number
    if (byte === BACKSLASH) return undefined
    if (byte === QUOTE) quoted = !quoted
    if (quoted || (byte !== MINUS && !isDigit(byte))) continue
    if (literals.length === MAX_NUMBERS) return undefined
    literals.push(Uint8Array.from(bytes.subarray(from, at)))
    while (NUMBER_BYTES.has(bytes[at + 1] as number)) at++
    from = at + 1
  }
  literals.push(Uint8Array.from(bytes.subarray(from)))
  return literals
}
