import type { Offset } from '../../processor/contract/record.ts'

/** A letter as it waits to be shown. */
export interface FoundLetter {
  readonly partition: number
  readonly offset: Offset
  /** Epoch ms; undefined: it has no time. */
  readonly at: number | undefined
  /** JSON. */
  readonly text: string
}

/** Offsets that one window has at most. */
const MAX_WINDOW = 4_096
/** Bytes of letters that a window is to have. */
const WINDOW_BYTES = 4 * 1024 * 1024
/** Those after which one that is not at its end is given up for a shorter one. */
export const MAX_WINDOW_BYTES = 2 * WINDOW_BYTES

/** One partition, read from its end backwards, a window of offsets after the other: what was found and not yet shown. */
export class LetterLane {
  readonly partition: number
  #start: Offset
  /** All from here up to what was found, or shown, has been examined. */
  #examined: Offset
  /** The newest last. */
  #found: FoundLetter[] = []
  #window = 0
  #maxWindow = MAX_WINDOW

  /** What lies before `unshown` is to be shown. */
  constructor(partition: number, start: Offset, unshown: Offset) {
    this.partition = partition
    this.#start = start
    this.#examined = unshown
  }

  /** The newest that is to be shown; undefined: there is none, or none was found yet. */
  get head(): FoundLetter | undefined {
    return this.#found.at(-1)
  }

  /** What comes next is not known. */
  get isOpen(): boolean {
    return this.#found.length === 0 && this.#examined > this.#start
  }

  /** What comes before it has still to be shown; undefined: nothing has. */
  get unshown(): Offset | undefined {
    if (this.head !== undefined) return this.head.offset + 1
    return this.#examined > this.#start ? this.#examined : undefined
  }

  take(): FoundLetter {
    return this.#found.pop() as FoundLetter
  }

  /**
   * The window to examine next, in which `wanted` letters may be: transaction markers take every other offset at most.
   * `first`: the most offsets of the first one, of which nothing is known.
   */
  next(wanted: number, first: number): { readonly from: Offset; readonly to: Offset } {
    const most = this.#window === 0 ? Math.min(first, this.#maxWindow) : this.#maxWindow
    this.#window = Math.min(Math.max(this.#window, 2 * wanted), most)
    return { from: Math.max(this.#start, this.#examined - this.#window), to: this.#examined }
  }

  /** The window from `from` on, of so many bytes, has been examined, and holds these, in order; `more`: and others before. */
  add(from: Offset, bytes: number, letters: readonly FoundLetter[], more: boolean): void {
    const [first] = letters
    const fitting = Math.floor((WINDOW_BYTES * (this.#examined - from)) / Math.max(1, bytes))
    this.#maxWindow = Math.min(MAX_WINDOW, Math.max(1, fitting))
    this.#examined = more && first !== undefined ? first.offset : from
    this.#found = [...letters]
    // Where few are looked for among many.
    if (!more) this.#window *= 4
  }

  /** The window cannot be read whole: the next one has so many offsets. */
  shorten(offsets: number): void {
    this.#maxWindow = offsets
  }

  /** What is kept by now: retention may have passed. */
  clip(start: Offset, end: Offset): void {
    this.#start = start
    this.#examined = Math.min(this.#examined, end)
  }
}

/**
 * The lane whose head is shown next: the newest head. One without a time comes at once, beside its newer neighbour, as
 * it would keep those behind it from their turn. Equals in the order of their partitions.
 */
export function foremost(lanes: readonly LetterLane[]): LetterLane | undefined {
  let found: LetterLane | undefined
  for (const lane of lanes) if (lane.head !== undefined && isBefore(lane.head, found?.head)) found = lane
  return found
}

function isBefore({ at: a = Number.POSITIVE_INFINITY }: FoundLetter, other: FoundLetter | undefined): boolean {
  if (other === undefined) return true
  return a > (other.at ?? Number.POSITIVE_INFINITY)
}
