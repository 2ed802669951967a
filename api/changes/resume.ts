import { murmur2 } from '../../processor/contract/partition.ts'
import type { Offset } from '../../processor/contract/record.ts'
import { numberText, offsetsText, parseNumber, parseOffsets, type Seal, seal, unseal } from '../http/cursor.ts'
import type { ResetReason } from './event.ts'

/** A place in the changelog: everything before `offsets[p]` in partition p was told. Undefined: p is not followed. */
export interface ChangesPosition {
  readonly offsets: readonly (Offset | undefined)[]
  /** Epoch seconds at which the place was last the end of the changelog. Deletions before it are all included. */
  readonly atSeconds: number
}

/** Characters of the longest position: 1,024 partitions with offsets of up to 2^40. */
export const MAX_POSITION = 10_000

/**
 * Stands for a position where nothing can be resumed. An empty id would not do: an EventSource then sends no header,
 * and its first parameters would count again.
 */
export const NOWHERE = '-'

export type NotAPosition = 'position-malformed' | 'position-of-another-stream'

/**
 * Positions as event ids: `<checksum>.<stream>.<time>.<offset>.…` with an offset per partition, in base 36; the offset
 * is empty where the partition is not followed. `stream` identifies log, query and caller, since a position means
 * nothing to another stream.
 */
export class Positions {
  readonly #partitions: number
  readonly #stream: string

  /** `stream` is equal for streams that may resume one another, in any process. */
  constructor(stream: string, partitions: number) {
    this.#partitions = partitions
    this.#stream = hash(`${partitions} ${stream}`)
  }

  encode({ offsets, atSeconds }: ChangesPosition): string {
    return seal([this.#stream, numberText(atSeconds), offsetsText(offsets, NOT_FOLLOWED)].join('.'), SEAL)
  }

  decode(text: string): ChangesPosition | NotAPosition {
    const body = text.length > MAX_POSITION ? undefined : unseal(text, SEAL)
    const [stream, seconds = '', ...rest] = body?.split('.') ?? []
    const atSeconds = parseNumber(seconds)
    const offsets = parseOffsets(rest.join('.'), NOT_FOLLOWED)
    if (atSeconds === undefined || offsets === undefined) return 'position-malformed'
    if (stream !== this.#stream || rest.length !== this.#partitions) return 'position-of-another-stream'
    return { offsets, atSeconds }
  }
}

const NOT_FOLLOWED = ''
const SEAL: Seal = { separator: '.', checksum: (body) => hash(`position ${body}`) }

/** Writes 32 bits in base 36, 7 characters. */
function hash(text: string): string {
  return numberText(murmur2(text) >>> 0).padStart(7, '0')
}

export type Start = { readonly at: ChangesPosition } | { readonly anew: ResetReason }

export interface StartFacts {
  /** The client's id. Undefined, empty or NOWHERE: it has none. */
  readonly lastEventId: string | undefined
  readonly positions: Positions
  /** The last known end of each partition; a little behind is good enough. */
  readonly ends: readonly Offset[]
  /** How many changes after the position a stream may have to read. Undefined: any number. */
  readonly maxBehind: number | undefined
  readonly deleteRetentionMs: number
  /** Epoch ms. */
  readonly now: number
}

/**
 * Clocks differ between processes, and a position may be old when it is given: both get half of the time for which
 * deletions are kept. A position further in the future came from a clock that cannot be trusted.
 */
const SAFE_SHARE = 0.5

export function planStart(facts: StartFacts): Start {
  const { lastEventId, positions, ends, maxBehind, deleteRetentionMs, now } = facts
  if (lastEventId === undefined || lastEventId === '' || lastEventId === NOWHERE) return { anew: 'start' }
  const position = positions.decode(lastEventId)
  if (typeof position === 'string') return { anew: position }
  const age = now - position.atSeconds * 1000
  if (Math.abs(age) > deleteRetentionMs * SAFE_SHARE) return { anew: 'position-expired' }
  const behind = ends.reduce((sum, end, partition) => sum + Math.max(0, end - (position.offsets[partition] ?? end)), 0)
  if (maxBehind !== undefined && behind > maxBehind) return { anew: 'position-too-old' }
  return { at: position }
}
