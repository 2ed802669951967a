import type { Slice } from '../contract/query.ts'
import type { StateStore } from '../store/store.ts'
import type { RestoreProgress } from './restore-progress.ts'
import type { PositionWaiters, WriteOutcomes } from './waiters.ts'

/** The clocks of a processor. */
export interface RoleClock {
  /** Epoch ms. */
  readonly now: () => number
  /** Ms on a clock that nobody sets, for durations. */
  readonly monotonic: () => number
  /** Resolves after `ms`, or as soon as `signal` aborts. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
}

/** What a process keeps of a partition from one role to the next. */
export interface PartitionCopy {
  readonly store: StateStore
  readonly outcomes: WriteOutcomes
  readonly waiters: PositionWaiters
  readonly progress: RestoreProgress
  /** Called when the store has come to hold all of the changelog. */
  readonly onWhole: () => void
}

export type RoleState = 'restoring' | 'running' | 'closed'

/** The work on one copy, as a reader sees it. */
export interface Role {
  readonly kind: 'owner' | 'standby'
  readonly state: RoleState
  /** False when the group has not confirmed this member of late: another may hold the partition by now. */
  readonly held: boolean
  /**
   * Another copy may hold more than this one: it is ending, may have lost its claim without knowing, or does not know the
   * outcome of a commit.
   */
  readonly doubtful: boolean
  readonly store: StateStore
  readonly copy: PartitionCopy
  /**
   * Records that the store has not reached: of the input for an owner, of the changelog for a standby. Undefined while
   * the end is not known: then readers ask another copy.
   */
  readonly lag: number | undefined
  /** The lag without what an owner still restores: the records that wait to be processed. */
  readonly waiting: number | undefined
  /** Asks the log for the partition's end, so that the lag of a copy that does not move is known. */
  refreshLag(): Promise<void>
  /** The committed status of a device, if it is cached. */
  cached(deviceId: string): Slice | undefined
}

/** Devices in a copy; undefined while they are being counted, and until the copy has been whole. */
export function devicesIn({ checkpoint, count }: StateStore): number | undefined {
  return checkpoint?.whole === true ? count : undefined
}
