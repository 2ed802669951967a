import type { Batch, LogRecord, Offset } from '../log/log.ts'
import type { Checkpoint, StateStore } from '../store/store.ts'
import { type PartitionCopy, persist, type RoleContext } from './role.ts'

/**
 * Headers of the last changelog record of each commit: the input offset that was committed with it, and the devices
 * there were then. So who follows the changelog alone knows both.
 */
export const HEADER_INPUT = 'input'
export const HEADER_DEVICES = 'devices'

export type RestorePlan =
  | { readonly kind: 'fresh' | 'resume'; readonly from: Offset }
  | { readonly kind: 'wipe'; readonly from: Offset; readonly reason: string }

/** What is known when a copy is taken up: of its store, of the changelog, and, for an owner, of the claim. */
export interface RestoreFacts {
  readonly checkpoint: Checkpoint | undefined
  readonly changelog: { readonly start: Offset; readonly end: Offset }
  /** The claim's committed input, and the changelog's end committed with it; undefined for a standby. */
  readonly claimed: { readonly input: Offset; readonly changelogEnd: Offset } | undefined
  readonly now: number
  readonly deleteRetentionMs: number
}

/**
 * Whether tombstones may be gone that a copy has not read which held all of the changelog at `since`, epoch ms. A time that
 * lies ahead by as much is of a clock that was wrong: nobody knows how long ago that was.
 */
export function mayLackTombstones(since: number, now: number, deleteRetentionMs: number): boolean {
  return Math.abs(now - since) > deleteRetentionMs
}

/** Where the copy must read on from, and whether what it holds can be built upon. Pure. */
export function planRestore(facts: RestoreFacts): RestorePlan {
  const { checkpoint, changelog, claimed } = facts
  if (checkpoint === undefined) return { kind: 'fresh', from: changelog.start }
  const wipe = (reason: string): RestorePlan => ({ kind: 'wipe', from: changelog.start, reason })
  // The end that a reader sees may be before the marker of the commit that this store has made last. What is past the real
  // end, following refuses.
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
  // At the end nothing was missed, however long it was away. What follows a claim's is markers.
  const end = claimed?.changelogEnd ?? changelog.end
  if (checkpoint.changelog < end && mayLackTombstones(checkpoint.since, now, deleteRetentionMs)) {
    const seconds = Math.round((now - checkpoint.since) / 1000)
    const away = seconds < 0 ? `its last time is ${-seconds} s ahead of the clock` : `it was away for ${seconds} s`
    return wipe(`${away}: tombstones may be gone since`)
  }
  return { kind: 'resume', from: checkpoint.changelog }
}

export interface FollowOptions {
  readonly context: RoleContext
  readonly partition: number
  readonly copy: PartitionCopy
  /** The positions committed with the claim: reaching them is all there is to do. Undefined: follow until aborted. */
  readonly until: { readonly input: Offset; readonly changelogEnd: Offset } | undefined
  /** As long as it is not whole, owners of this process that restore, and heirs, come before it. */
  readonly yields: boolean
  /** Called as the copy moves on; `end`: of the changelog, as last known. */
  readonly onProgress: (position: Offset, end: Offset) => void
  /** Called when the copy first holds all that the changelog held at the beginning. */
  readonly onWhole: () => void
  /** Called when the store was emptied, and each time that it refused a write. */
  readonly onSetback?: () => void
}

/**
 * Restore, standby and promotion in one: brings the store from its checkpoint to the end of the changelog, or to the
 * claim's. The store is written only with what the changelog holds, so that it can stop at any point and go on there.
 * True when `until` was reached, false when `signal` aborted first.
 */
export async function followChangelog(options: FollowOptions, signal: AbortSignal): Promise<boolean> {
  const { context, partition, until, yields } = options
  const { store } = options.copy
  const topic = { topic: 'status', index: partition } as const
  // Not after the others: until then nobody can say how far behind the copy is, and it answers nothing.
  const changelog = await context.log.bounds(topic)
  options.copy.progress.sighted(changelog.end)
  if (yields) await context.restorePriority.turn(signal)
  const now = context.now()
  const { limits, logger } = context
  const { deleteRetentionMs } = context.log
  const plan = planRestore({ checkpoint: store.checkpoint, changelog, claimed: until, now, deleteRetentionMs })
  if (plan.kind === 'wipe') {
    logger.warn({ partition, reason: plan.reason }, 'store wiped: it cannot be resumed')
    options.onSetback?.()
    if (!(await persist(context, partition, () => store.wipe(), signal))) return false
  }
  const horizon = until?.changelogEnd ?? changelog.end
  logger.info({ partition, from: plan.from, to: horizon, plan: plan.kind }, 'restoring from the changelog')
  const following = new Following(options, plan.from, horizon)
  if (await following.arrive(signal)) return true
  const batchLimits = { maxRecords: limits.changelogRecords, maxBytes: limits.changelogBytes }
  for await (const batch of context.log.follow(topic, plan.from, batchLimits, signal)) {
    const began = context.monotonic()
    if (yields && !following.arrived) await context.restorePriority.turn(signal)
    if (signal.aborted) return false
    if (!(await following.apply(batch, signal))) return false
    if (following.arrived && until !== undefined) return true
    if (!following.arrived || batch.records.length >= limits.changelogRecords / 2) continue
    const rest = limits.minCommitIntervalMs - (context.monotonic() - began)
    if (rest > 0) await context.sleep(rest, signal)
  }
  return false
}

/** A copy that lacks nothing notes that so many times within the time for which the changelog keeps tombstones. */
const CONFIRMATIONS = 24

/**
 * However the copy ends after this, it was not away before: also when nothing was written to it for long. `end`: of the
 * changelog, at `at`.
 */
export async function confirm({ log }: RoleContext, store: StateStore, end: Offset, at: number): Promise<void> {
  const { checkpoint } = store
  if (checkpoint === undefined) return
  const away = at - checkpoint.since
  // After too long nobody knows whether it was: a machine may have slept, and all its clocks for leases with it.
  if (Math.abs(away) < log.deleteRetentionMs / CONFIRMATIONS || away > log.deleteRetentionMs) return
  await store.confirm(end, at)
}

/** The state of one follow. */
class Following {
  readonly #options: FollowOptions
  readonly #horizon: Offset
  #position: Offset
  /** All that the changelog held at the beginning has been read. */
  arrived = false

  constructor(options: FollowOptions, from: Offset, horizon: Offset) {
    this.#options = options
    this.#position = from
    this.#horizon = horizon
  }

  /** Records, when nothing is left to read, that the copy is whole now; true when an owner's work is done with that. */
  async arrive(signal: AbortSignal): Promise<boolean> {
    const { copy, until, onProgress } = this.#options
    const { store } = copy
    onProgress(this.#position, this.#horizon)
    if (this.#position < this.#horizon) return false
    const input = until?.input ?? store.checkpoint?.input ?? 0
    return (await this.#commit(new Map(), input, 0, signal)) && until !== undefined
  }

  async apply(batch: Batch, signal: AbortSignal): Promise<boolean> {
    const { context, partition, copy, until, onProgress } = this.#options
    const { store, decisions } = copy
    const writes = new Map<string, Uint8Array | null>()
    let last: LogRecord | undefined
    for (const record of batch.records) {
      if (record.key !== null) writes.set(record.key, record.value)
      if (record.headers === undefined) continue
      if (record.headers[HEADER_INPUT] !== undefined) last = record
      decisions.noteTold(record.headers)
    }
    this.#position = batch.next
    // Compaction may have taken, of what was read so far, records whose successors are still ahead. Only at the horizon
    // does the copy hold all effects of the input that the headers tell of.
    const told = this.#position < this.#horizon ? undefined : (until?.input ?? offsetIn(last, HEADER_INPUT))
    const input = Math.max(store.checkpoint?.input ?? 0, told ?? 0)
    const devices = offsetIn(last, HEADER_DEVICES)
    const added = store.count === undefined || devices === undefined ? 0 : devices - store.count
    if (!(await this.#commit(writes, input, added, signal))) return false
    const labels = { processor: context.instance, partition, role: until === undefined ? 'standby' : 'owner' }
    context.metrics.restored.inc(labels, batch.records.length)
    onProgress(batch.next, batch.end)
    return true
  }

  async #commit(
    writes: ReadonlyMap<string, Uint8Array | null>,
    input: Offset,
    added: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { context, partition, copy, onWhole, onSetback } = this.#options
    const { store } = copy
    const now = context.now()
    const whole = this.#position >= this.#horizon
    const reached: Checkpoint = {
      input,
      changelog: this.#position,
      whole: whole || store.checkpoint?.whole === true,
      since: whole ? now : (store.checkpoint?.since ?? now),
    }
    const write = () => store.commit(writes, reached, added)
    if (!(await persist(context, partition, write, signal, onSetback))) return false
    copy.arrivals.reached(input)
    if (whole && !this.arrived) {
      this.arrived = true
      copy.onWhole()
      onWhole()
    }
    return true
  }
}

/** Undefined also for a text that is no offset: the copy then does without, as for records of another writer. */
function offsetIn(record: LogRecord | undefined, header: string): number | undefined {
  const value = Number(record?.headers?.[header])
  return Number.isSafeInteger(value) && value >= 0 ? value : undefined
}
