import { createHash } from 'node:crypto'
import type { Offset } from '../../processor/contract/record.ts'

/**
 * How one kind of cursor is sealed: `<checksum><separator><body>`. The checksum tells a garbled cursor from a true one, and
 * binds it to the question that it was given for. It is no signature: a forged cursor reveals nothing that asking does not.
 */
export interface Seal {
  readonly separator: string
  readonly checksum: (body: string) => string
}

export function seal(body: string, { separator, checksum }: Seal): string {
  return `${checksum(body)}${separator}${body}`
}

/** The body; undefined when the seal is broken. */
export function unseal(text: string, kind: Seal): string | undefined {
  const body = text.slice(text.indexOf(kind.separator) + kind.separator.length)
  return seal(body, kind) === text ? body : undefined
}

const CHECKSUM_LENGTH = 16

export function sha256Checksum(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, CHECKSUM_LENGTH)
}

const RADIX = 36
const NUMBER = /^(0|[1-9a-z][0-9a-z]{0,10})$/

export function numberText(number: number): string {
  return number.toString(RADIX)
}

export function parseNumber(text: string): number | undefined {
  const number = NUMBER.test(text) ? Number.parseInt(text, RADIX) : Number.NaN
  return Number.isSafeInteger(number) ? number : undefined
}

/** Writes one offset per partition in base 36, separated by dots; `none` stands for a missing one. */
export function offsetsText(offsets: readonly (Offset | undefined)[], none: string): string {
  return offsets.map((offset) => (offset === undefined ? none : numberText(offset))).join('.')
}

/** Undefined when the text is not of this form. */
export function parseOffsets(text: string, none: string): (Offset | undefined)[] | undefined {
  const texts = text.split('.')
  const offsets = texts.map((offset) => (offset === none ? undefined : parseNumber(offset)))
  return offsets.some((offset, i) => offset === undefined && texts[i] !== none) ? undefined : offsets
}
