import { murmur2 } from '../../processor/contract/partition.ts'
import type { Offset } from '../../processor/contract/record.ts'

/** A place in the changelog: all before `offsets[p]` in partition p has been told; undefined: p is not followed. */
export interface ChangesPosition {
  readonly offsets: readonly (Offset | undefined)[]
  /** Epoch s at which the place was last the end of the changelog: no deletion that was due before it is missing. */
  readonly atSeconds: number
}

/** The longest text of a position, in characters: of 1,024 partitions with offsets of up to 2^40. */
export const MAX_POSITION = 10_000

/**
 * What stands for a position where there is nothing to resume. Not an empty id: after that an EventSource sends no header,
 * and the parameter with which it once began would be taken for the newer one.
 */
export const NOWHERE = '-'

const RADIX = 36
const HASH_LENGTH = 7
const NUMBER = /^[0-9a-z]{1,11}$/

/** Why a text is not a position of a stream. */
export type NotAPosition = 'position-malformed' | 'position-of-another-stream'

/**
 * Positions as event ids: `<checksum>.<stream>.<time>.<offset>.…`, one offset per partition, numbers to the base of 36; an
 * offset is empty where the partition is not followed. `stream` tells log, query and caller: what the client has is what
 * matches these, so a position of others means nothing.
 */
export class Positions {
  readonly #partitions: number
  readonly #stream: string

  /** `stream`: equal for streams of which one can resume the other, in whichever process. */
  constructor(stream: string, partitions: number) {
    this.#partitions = partitions
    this.#stream = hash(`${partitions} ${stream}`)
  }

  encode({ offsets, atSeconds }: ChangesPosition): string {
    let text = `${this.#stream}.${atSeconds.toString(RADIX)}`
    for (const offset of offsets) text += offset === undefined ? '.' : `.${offset.toString(RADIX)}`
    return `${checksum(text)}.${text}`
  }

  decode(text: string): ChangesPosition | NotAPosition {
    const body = text.slice(HASH_LENGTH + 1)
    if (text.length > MAX_POSITION || text !== `${checksum(body)}.${body}`) return 'position-malformed'
    const [stream, seconds = '', ...rest] = body.split('.')
    const numbers = [seconds, ...rest.filter((offset) => offset !== '')]
    if (numbers.some((number) => !NUMBER.test(number) || !Number.isSafeInteger(valueOf(number)))) {
      return 'position-malformed'
    }
    if (stream !== this.#stream || rest.length !== this.#partitions) return 'position-of-another-stream'
    const offsets = rest.map((offset) => (offset === '' ? undefined : valueOf(offset)))
    return { offsets, atSeconds: valueOf(seconds) }
  }
}

function valueOf(number: string): number {
  return Number.parseInt(number, RADIX)
}

/** Tells a garbled position from a true one; it is no signature, as a forged one reveals nothing that asking would not. */
function checksum(text: string): string {
  return hash(`position ${text}`)
}

function hash(text: string): string {
  return (murmur2(text) >>> 0).toString(RADIX).padStart(HASH_LENGTH, '0')
}
