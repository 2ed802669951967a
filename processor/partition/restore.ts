import type { Logger } from 'pino'
import type { ProcessorLimits } from '../limits.ts'
import type { Batch, Log, LogRecord, Offset } from '../log/log.ts'
import type { CopyMetrics } from '../metrics.ts'
import type { RestorePriority } from '../runtime/limiter.ts'
import type { Checkpoint, StateStore } from '../store/store.ts'
import { HEADER_DEVICES, HEADER_INPUT } from './commit.ts'
import type { PartitionCopy, RoleClock } from './role.ts'
import type { StoreWriter } from './store-writer.ts'

export type RestorePlan =
  | { readonly kind: 'fresh' | 'resume'; readonly from: Offset }
  | { readonly kind: 'wipe'; readonly from: Offset; readonly reason: string }

/** What is known of the store, the changelog and the claim when a role takes up a copy. */
export interface RestoreFacts {
  readonly checkpoint: Checkpoint | undefined
  readonly changelog: { readonly start: Offset; readonly end: Offset }
  /** The claim's committed input, and the changelog's end committed with it; undefined for a standby. */
  readonly claimed: { readonly input: Offset; readonly changelogEnd: Offset } | undefined
  readonly now: number
  readonly deleteRetentionMs: number
}

/** Where the copy reads on, and whether what it holds can be kept. Pure. */
export function planRestore(facts: RestoreFacts): RestorePlan {
  const { checkpoint, changelog, claimed } = facts
  if (checkpoint === undefined) return { kind: 'fresh', from: changelog.start }
  const wipe = (reason: string): RestorePlan => ({ kind: 'wipe', from: changelog.start, reason })
  // A standby may see an end before the marker of the last commit that its store holds, made while it was the owner. If
  // it is past the real end, `Log.follow` rejects.
  if (claimed !== undefined && checkpoint.changelog > changelog.end) {
    return wipe(`its changelog offset ${checkpoint.changelog} is past the changelog's end ${changelog.end}`)
  }
  if (checkpoint.changelog < changelog.start) {
    return wipe(`the changelog starts at ${changelog.start}, after its offset ${checkpoint.changelog}`)
  }
  if (claimed !== undefined && checkpoint.input > claimed.input) {
    return wipe(`its input offset ${checkpoint.input} is past the committed ${claimed.input}`)
  }
  const { now, deleteRetentionMs } = facts
  // A copy at the end missed nothing, however long it was away. Only markers follow a claim's end.
  const end = claimed?.changelogEnd ?? changelog.end
  if (checkpoint.changelog < end && mayLackTombstones(checkpoint.since, now, deleteRetentionMs)) {
    const seconds = Math.round((now - checkpoint.since) / 1000)
    const away = seconds < 0 ? `its last time is ${-seconds} s ahead of the clock` : `it was away for ${seconds} s`
    return wipe(`${away}: tombstones may be gone since`)
  }
  return { kind: 'resume', from: checkpoint.changelog }
}

/**
 * Whether compaction may have removed tombstones that a copy has not read, when it last held all of the changelog at
 * `since`, epoch ms. A time that far in the future comes from a wrong clock and tells nothing.
 */
export function mayLackTombstones(since: number, now: number, deleteRetentionMs: number): boolean {
  return Math.abs(now - since) > deleteRetentionMs
}

/** A copy that lacks nothing notes this so many times within the changelog's `delete.retention.ms`. */
const CONFIRMATIONS = 24

/**
 * Notes in the store, now and then, that it held all of the changelog, which ended at `end` at `at`: a copy to which nothing
 * was written for long has not been away.
 */
export async function confirmWhole(
  store: StateStore,
  deleteRetentionMs: number,
  { end, at }: { readonly end: Offset; readonly at: number },
): Promise<void> {
  const { checkpoint } = store
  if (checkpoint === undefined) return
  const away = at - checkpoint.since
  // After a longer time it may have been away: a machine may have slept, with all its clocks.
  if (Math.abs(away) < deleteRetentionMs / CONFIRMATIONS || away > deleteRetentionMs) return
  await store.confirm(end, at)
}

/** What a restore works with; the same for all partitions of a processor. */
export interface RestoreParts {
  readonly log: Log
  readonly clock: RoleClock
  readonly writer: StoreWriter
  readonly restorePriority: RestorePriority
  readonly limits: ProcessorLimits
  readonly logger: Logger
}

export interface FollowOptions {
  readonly partition: number
  readonly copy: PartitionCopy
  readonly metrics: CopyMetrics
  /** The positions of the claim, where an owner's restore ends. Undefined: follow until aborted. */
  readonly until: { readonly input: Offset; readonly changelogEnd: Offset } | undefined
  /** Until it is whole, the copy gives way to heirs and to owners of this process that restore. */
  readonly yields: boolean
  /** Called as the copy moves on; `end`: of the changelog, as last known. */
  readonly onProgress: (position: Offset, end: Offset) => void
  /** Called once the copy holds all that the changelog held when this began. */
  readonly onWhole?: () => void
  /** Called when the store was wiped, and each time that it refused a write. */
  readonly onSetback?: () => void
}

/**
 * Restore, standby and promotion in one: brings the store from its checkpoint to the end of the changelog, or of the
 * claim. It writes only what the changelog holds, so it can stop at any point and resume there. True when `until` was
 * reached, false when `signal` aborted first.
 */
export async function followChangelog(
  parts: RestoreParts,
  options: FollowOptions,
  signal: AbortSignal,
): Promise<boolean> {
  const { log, clock, writer, restorePriority, limits, logger } = parts
  const { partition, copy, until, yields } = options
  const { store } = copy
  const topic = { topic: 'status', index: partition } as const
  // Before it gives way: until the end is known, nobody knows the lag of the copy, and it answers nothing.
  const changelog = await log.bounds(topic)
  copy.progress.sawEnd(changelog.end)
  if (yields) await restorePriority.turn(signal)
  const { deleteRetentionMs } = log
  const now = clock.now()
  const plan = planRestore({ checkpoint: store.checkpoint, changelog, claimed: until, now, deleteRetentionMs })
  if (plan.kind === 'wipe') {
    logger.warn({ partition, reason: plan.reason }, 'store wiped: it cannot be resumed')
    options.onSetback?.()
    if (!(await writer.persist(partition, () => store.wipe(), signal))) return false
  }
  const horizon = until?.changelogEnd ?? changelog.end
  logger.info({ partition, from: plan.from, to: horizon, plan: plan.kind }, 'restoring from the changelog')
  const following = new Following(parts, options, plan.from, horizon)
  if (await following.arrive(signal)) return true
  const batchLimits = { maxRecords: limits.changelogRecords, maxBytes: limits.changelogBytes }
  for await (const batch of log.follow(topic, plan.from, batchLimits, signal)) {
    const began = clock.monotonic()
    if (yields && !following.arrived) await restorePriority.turn(signal)
    if (signal.aborted) return false
    if (!(await following.apply(batch, signal))) return false
    if (following.arrived && until !== undefined) return true
    if (!following.arrived || batch.records.length >= limits.changelogRecords / 2) continue
    const rest = limits.minCommitIntervalMs - (clock.monotonic() - began)
    if (rest > 0) await clock.sleep(rest, signal)
  }
  return false
}

/** The state of one `followChangelog`. */
class Following {
  readonly #parts: RestoreParts
  readonly #options: FollowOptions
  readonly #horizon: Offset
  #position: Offset
  /** The copy has reached the horizon. */
  arrived = false

  constructor(parts: RestoreParts, options: FollowOptions, from: Offset, horizon: Offset) {
    this.#parts = parts
    this.#options = options
    this.#position = from
    this.#horizon = horizon
  }

  /** Notes that the copy is whole if nothing is left to read; true when that ends an owner's restore. */
  async arrive(signal: AbortSignal): Promise<boolean> {
    const { copy, until, onProgress } = this.#options
    onProgress(this.#position, this.#horizon)
    if (this.#position < this.#horizon) return false
    const input = until?.input ?? copy.store.checkpoint?.input ?? 0
    return (await this.#store(new Map(), input, 0, signal)) && until !== undefined
  }

  /** False when `signal` aborted before the batch was stored. */
  async apply(batch: Batch, signal: AbortSignal): Promise<boolean> {
    const { copy, metrics, until, onProgress } = this.#options
    const { store, outcomes } = copy
    const writes = new Map<string, Uint8Array | null>()
    let last: LogRecord | undefined
    for (const record of batch.records) {
      if (record.key !== null) writes.set(record.key, record.value)
      if (record.headers === undefined) continue
      if (record.headers[HEADER_INPUT] !== undefined) last = record
      outcomes.noteHeaders(record.headers)
    }
    this.#position = batch.next
    // Below the horizon compaction may have removed records whose successors are still ahead. Only from there on does
    // the copy hold all effects of the input that a header names.
    const told = this.#position < this.#horizon ? undefined : (until?.input ?? offsetIn(last, HEADER_INPUT))
    const input = Math.max(store.checkpoint?.input ?? 0, told ?? 0)
    const devices = offsetIn(last, HEADER_DEVICES)
    const added = store.count === undefined || devices === undefined ? 0 : devices - store.count
    if (!(await this.#store(writes, input, added, signal))) return false
    metrics.restored(batch.records.length)
    onProgress(batch.next, batch.end)
    return true
  }

  async #store(
    writes: ReadonlyMap<string, Uint8Array | null>,
    input: Offset,
    added: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { clock, writer } = this.#parts
    const { partition, copy, onWhole, onSetback } = this.#options
    const { store } = copy
    const now = clock.now()
    const whole = this.#position >= this.#horizon
    const reached: Checkpoint = {
      input,
      changelog: this.#position,
      whole: whole || store.checkpoint?.whole === true,
      since: whole ? now : (store.checkpoint?.since ?? now),
    }
    const write = () => store.commit(writes, reached, added)
    if (!(await writer.persist(partition, write, signal, onSetback))) return false
    copy.waiters.reached(input)
    if (whole && !this.arrived) {
      this.arrived = true
      copy.onWhole()
      onWhole?.()
    }
    return true
  }
}

/** Undefined also for a text of another writer that is no offset: the copy does without. */
function offsetIn(record: LogRecord | undefined, header: string): number | undefined {
  const value = Number(record?.headers?.[header])
  return Number.isSafeInteger(value) && value >= 0 ? value : undefined
}
