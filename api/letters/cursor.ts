import { createHash } from 'node:crypto'
import type { Offset } from '../../processor/contract/record.ts'

/** The longest cursor, in characters: of 1,024 partitions with offsets of up to 2^40. */
export const MAX_LETTERS_CURSOR = 10_000

const CHECKSUM = 16
const RADIX = 36
const NOTHING = '-'
const NUMBER = /^(0|[1-9a-z][0-9a-z]{0,10})$/

/** By partition: what comes before it has still to be shown; undefined: nothing has. */
export type Unshown = readonly (Offset | undefined)[]

/** What a cursor is bound to, beside the log. */
export interface LetterFilters {
  readonly reason: string | undefined
  readonly deviceId: string | undefined
  readonly partition: number | undefined
}

/**
 * Cursors of dead letters: `<checksum>.<offset>.…`, one offset per partition to the base of 36, `-` where nothing is left.
 * The checksum binds a cursor to its log and filters, and tells a garbled one from a true one. It is no signature: a forged
 * one would reveal nothing that asking does not.
 */
export class LetterCursors {
  readonly #partitions: number
  readonly #bound: string

  constructor(identity: string, partitions: number, { reason, deviceId, partition }: LetterFilters) {
    this.#partitions = partitions
    this.#bound = JSON.stringify([identity, partitions, reason, deviceId, partition])
  }

  encode(unshown: Unshown): string {
    const body = unshown.map((offset) => offset?.toString(RADIX) ?? NOTHING).join('.')
    const checksum = createHash('sha256').update(`${this.#bound} ${body}`).digest('hex').slice(0, CHECKSUM)
    return `${checksum}.${body}`
  }

  /** Undefined when this is no cursor that a page of these filters gave. */
  decode(cursor: string): Unshown | undefined {
    const [, ...texts] = cursor.split('.')
    if (texts.length !== this.#partitions) return undefined
    if (texts.some((text) => text !== NOTHING && !isOffset(text))) return undefined
    const unshown = texts.map((text) => (text === NOTHING ? undefined : Number.parseInt(text, RADIX)))
    return this.encode(unshown) === cursor ? unshown : undefined
  }
}

function isOffset(text: string): boolean {
  return NUMBER.test(text) && Number.isSafeInteger(Number.parseInt(text, RADIX))
}
