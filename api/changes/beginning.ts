import type { Offset } from '../../processor/contract/record.ts'
import type { ResetReason } from './event.ts'
import { type ChangesPosition, NOWHERE, type Positions } from './resume.ts'

/** Where a stream begins: at a position, or anew. */
export type Beginning = { readonly at: ChangesPosition } | { readonly anew: ResetReason }

export interface BeginningFacts {
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
export function planBeginning(facts: BeginningFacts): Beginning {
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
