import type { Logger } from 'pino'
import { StoreCorruptedError } from '../contract/errors.ts'
import type { Slice } from '../contract/query.ts'
import type { ProcessorLimits } from '../limits.ts'
import type { Log } from '../log/log.ts'
import type { ProcessorMetrics, Receipts } from '../metrics.ts'
import type { InFlight } from '../runtime/in-flight.ts'
import { Backoff } from '../runtime/pause.ts'
import type { RestorePriority } from '../runtime/restore-priority.ts'
import type { Turns } from '../runtime/turns.ts'
import type { StatusCache } from '../store/status-cache.ts'
import type { StateStore } from '../store/store.ts'
import type { TextCache } from '../store/text-cache.ts'
import type { Progress } from './progress.ts'
import type { StoreFaults } from './store-faults.ts'
import type { Arrivals, Decisions } from './waiters.ts'

/** What the roles of one process share. */
export interface RoleContext {
  readonly instance: string
  readonly log: Log
  readonly cache: StatusCache
  readonly texts: TextCache
  readonly turns: Turns
  readonly restorePriority: RestorePriority
  readonly inFlight: InFlight
  readonly faults: StoreFaults
  readonly receipts: Receipts
  readonly limits: ProcessorLimits
  readonly metrics: ProcessorMetrics
  readonly logger: Logger
  /** Epoch ms. */
  readonly now: () => number
  /** Ms on a clock that nobody sets: what a duration is measured by. */
  readonly monotonic: () => number
  /** Resolves after `ms`, or as soon as `signal` aborts. */
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>
}

/** What a process keeps of a partition, from role to role. */
export interface PartitionCopy {
  readonly store: StateStore
  readonly decisions: Decisions
  readonly arrivals: Arrivals
  readonly progress: Progress
  /** Called when the store has come to hold all of the changelog. */
  readonly onWhole: () => void
}

export type RoleState = 'restoring' | 'running' | 'closed'

/** What a reader may know of the work on one copy. */
export interface Role {
  readonly kind: 'owner' | 'standby'
  readonly state: RoleState
  /** False when the group has not said of late that this member is in it: the partition may be with others by now. */
  readonly held: boolean
  /**
   * Another copy may hold what this one does not: it has been told to end, or may have lost its claim unknowing, or does
   * not know what became of a commit.
   */
  readonly doubtful: boolean
  readonly store: StateStore
  readonly copy: PartitionCopy
  /**
   * Records that the store has not reached: an owner's of the input, a standby's of the changelog. Undefined while it is not
   * known where that ends: then another copy is to be asked.
   */
  readonly lag: number | undefined
  /** Records that wait for the work on the copy: of the lag, not what an owner restores. Undefined while the end is not known. */
  readonly waiting: number | undefined
  readonly progress: Progress
  /** Asks the log where the partition ends, so that a copy that does not move shows how far it is behind, or notes that it is not. */
  sight(): Promise<void>
  /** The committed status of a device, when it is at hand without a read. */
  committed(deviceId: string): Slice | undefined
}

/**
 * Devices in a copy. Until it has been whole its count is what the changelog told last, and not what it holds; undefined
 * then, and while they are being counted.
 */
export function devicesIn({ checkpoint, count }: StateStore): number | undefined {
  return checkpoint?.whole === true ? count : undefined
}

/**
 * Writes to the store until it succeeds: what is committed to the log must not be skipped. Between the tries it waits,
 * longer each time, up to a bound. False when `signal` aborted first. Rejects with StoreCorruptedError, or as
 * `StoreFaults.refused` does. `onRefused` is called after each try that failed.
 */
export async function persist(
  context: RoleContext,
  partition: number,
  write: () => Promise<void>,
  signal: AbortSignal,
  onRefused: () => void = () => {},
): Promise<boolean> {
  const began = context.monotonic()
  const backoff = new Backoff(context.limits.retryMinMs, context.limits.retryMaxMs)
  let waited = 0
  try {
    for (let failures = 0; ; failures++) {
      try {
        await write()
        if (failures > 0) context.logger.info({ partition, failures }, 'store writes again')
        context.metrics.storeSeconds.observe({ processor: context.instance }, (context.monotonic() - began) / 1000)
        return true
      } catch (error) {
        if (error instanceof StoreCorruptedError) throw error
        onRefused()
        await context.faults.refused(partition, error, waited)
      }
      waited = backoff.next()
      await context.sleep(waited, signal)
      if (signal.aborted) return false
    }
  } finally {
    context.faults.over(partition)
  }
}
