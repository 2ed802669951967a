import { murmur2 } from '../../processor/contract/partition.ts'
import type { Offset } from '../../processor/contract/record.ts'
import { numberText, offsetsText, parseNumber, parseOffsets, type Seal, seal, unseal } from '../http/cursor.ts'
import type { ResetReason } from './event.ts'

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

/** 32 bits to the base of 36, in 7 characters. */
function hash(text: string): string {
  return numberText(murmur2(text) >>> 0).padStart(7, '0')
}

/** Where a stream begins: at a position, or anew. */
export type Start = { readonly at: ChangesPosition } | { readonly anew: ResetReason }

export interface StartFacts {
  /** Of the client; undefined, empty or NOWHERE: it has none. */
  readonly lastEventId: string | undefined
  readonly positions: Positions
  /** By partition, as they are known here; a little before is good enough. */
  readonly ends: readonly Offset[]
  /** Changes after the position that a stream may have to read; undefined: as many as there are. */
  readonly maxBehind: number | undefined
  readonly deleteRetentionMs: number
  /** Epoch ms. */
  readonly now: number
}

/**
 * Clocks of processes differ, and a position may be some time behind when it is given: half of the time that deletions are
 * kept is left for both. One that is of later than now by more was given by a clock of which nothing can be told.
 */
const SAFE_SHARE = 0.5

/** Pure. */
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
