import assert from 'node:assert/strict'
import { FencedError, isBeyondUse, LogCorruptedError, RetryableError } from '../contract/errors.ts'
import type { Slice } from '../contract/query.ts'
import type { ProcessorLimits } from '../limits.ts'
import type { Batch, Claim, LogRecord, Offset } from '../log/log.ts'
import { CopyMetrics, type EndToEndLatency } from '../metrics.ts'
import type { InFlight } from '../runtime/limiter.ts'
import { ReadAhead } from '../runtime/pause.ts'
import type { Turns } from '../runtime/turns.ts'
import type { StatusCache } from '../store/status-cache.ts'
import type { StateStore } from '../store/store.ts'
import { type Commit, Committer } from './commit.ts'
import { confirmWhole, followChangelog } from './restore.ts'
import { devicesIn, type PartitionCopy, type Role, type RoleState } from './role.ts'
import type { StandbyParts } from './standby.ts'

/**
 * A partition whose batches are small gathers records for this many times as long as a batch took. On Kafka a commit of
 * few records costs as much as one of many: without the pause, 2,000 records a second kept two cores busy.
 */
const GATHER = 8

/**
 * How long a partition waits, ms, after a batch that took `tookMs`, before it takes the records that came meanwhile. It does
 * not wait while more records are there than the batch had. `maxGatherMs`: of the log.
 */
export function restAfter(
  { records, next, end }: Batch,
  { tookMs, maxGatherMs }: { readonly tookMs: number; readonly maxGatherMs: number },
  limits: Pick<ProcessorLimits, 'batchRecords' | 'minCommitIntervalMs'>,
): number {
  if (records.length >= limits.batchRecords / 2 || end - next > records.length) return 0
  const interval = Math.max(limits.minCommitIntervalMs, Math.min(GATHER * tookMs, maxGatherMs))
  return Math.max(0, interval - tookMs)
}

/**
 * A commit that takes longer, ms, may have succeeded without this owner knowing, and its standbys may be ahead of it. Longer
 * than most commits take, and much shorter than the time after which readers leave a late owner for a standby.
 */
const DOUBT_MS = 100

/** A damaged store is wiped and restored while the task runs; nothing follows `closed`. */
const LEGAL_MOVES: Readonly<Record<RoleState, readonly RoleState[]>> = {
  restoring: ['running', 'closed'],
  running: ['restoring', 'closed'],
  closed: [],
}

export interface TaskParts extends StandbyParts {
  /** The cached statuses of all partitions of the process. */
  readonly statuses: StatusCache
  readonly turns: Turns
  readonly inFlight: InFlight
  readonly latency: EndToEndLatency
}

/** The active work on one partition under one claim: restores the store, then processes the input. */
export class Task implements Role {
  readonly kind = 'owner'
  readonly store: StateStore
  readonly copy: PartitionCopy
  readonly #parts: TaskParts
  readonly #claim: Claim
  readonly #metrics: CopyMetrics
  readonly #committer: Committer
  #state: RoleState = 'restoring'
  /** The end of the input, as last seen. Undefined until then, if the log did not tell it with the claim. */
  #inputEnd: Offset | undefined
  /** The committed input offset at which a damaged store was wiped last. */
  #wipedAt: Offset | undefined
  #signal: AbortSignal | undefined

  constructor(parts: TaskParts, claim: Claim, copy: PartitionCopy) {
    const { instance, metrics, statuses, turns, writer, clock, limits, logger } = parts
    const { statusBytes } = limits
    const onCommitted = (commit: Commit) => this.#onCommitted(commit)
    this.#parts = parts
    this.#claim = claim
    this.store = copy.store
    this.copy = copy
    this.#metrics = new CopyMetrics(metrics, { processor: instance, partition: claim.partition, role: 'owner' })
    this.#committer = new Committer({ claim, copy, writer, statuses, turns, statusBytes, clock, logger, onCommitted })
    this.#inputEnd = claim.inputEnd
  }

  get state(): RoleState {
    return this.#state
  }

  get held(): boolean {
    return this.#claim.held
  }

  get doubtful(): boolean {
    if (this.#signal?.aborted === true || !this.held) return true
    const { pendingSince } = this.#committer
    return pendingSince !== undefined && this.#parts.clock.monotonic() - pendingSince >= DOUBT_MS
  }

  get lag(): number {
    // The input reaches at least as far as the claim says is committed.
    return Math.max(0, (this.#inputEnd ?? this.#committer.input) - (this.store.checkpoint?.input ?? 0))
  }

  get waiting(): number | undefined {
    // While it restores, the store gets the committed input from the changelog: only what follows it waits.
    if (this.#state !== 'restoring') return this.lag
    return this.#inputEnd === undefined ? undefined : Math.max(0, this.#inputEnd - this.#committer.input)
  }

  cached(deviceId: string): Slice | undefined {
    return this.#committer.cached(deviceId)
  }

  async refreshLag(): Promise<void> {
    await this.#refreshInputEnd()
    if (this.#state === 'closed' || this.doubtful) return
    // Nobody else commits while the claim is held, so only markers can follow this end.
    const { log, clock } = this.#parts
    await confirmWhole(this.store, log.deleteRetentionMs, { end: this.#committer.changelogEnd, at: clock.now() })
  }

  async #refreshInputEnd(): Promise<void> {
    const { end } = await this.#parts.log.bounds({ topic: 'telemetry', index: this.#claim.partition })
    this.#inputEnd = Math.max(this.#inputEnd ?? 0, end)
    if (this.#state !== 'closed') this.#gauge()
  }

  /**
   * Resolves after `signal` aborted, when no more effect follows. Rejects with FencedError or RetryableError when the
   * claim is over, and when the log or the store holds what cannot be continued.
   */
  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal
    const { logger } = this.#parts
    const { partition, epoch } = this.#claim
    logger.info({ partition, epoch, input: this.#committer.input }, 'partition taken')
    this.#metrics.open(this)
    try {
      while (!signal.aborted) {
        try {
          return await this.#process(signal)
        } catch (error) {
          if (!(await this.#recover(error, signal))) throw error
        }
      }
    } catch (error) {
      if (error instanceof FencedError) this.#metrics.fenced()
      logger.warn({ partition, epoch, err: error }, 'partition dropped')
      throw error
    } finally {
      this.#move('closed')
      this.copy.progress.stop(this.#committer.changelogEnd)
      this.#metrics.close(this)
      logger.info({ partition, epoch, input: this.#committer.input }, 'partition released')
    }
  }

  async #process(signal: AbortSignal): Promise<void> {
    const { log, clock, limits, restorePriority } = this.#parts
    this.#committer.restart(this.#wipedAt !== undefined)
    const telemetry = { topic: 'telemetry', index: this.#claim.partition } as const
    const batchLimits = { maxRecords: limits.batchRecords, maxBytes: limits.batchBytes }
    const ended = new AbortController()
    const reading = AbortSignal.any([signal, ended.signal])
    const incoming = log.follow(telemetry, this.#committer.input, batchLimits, reading)[Symbol.asyncIterator]()
    const ahead = new ReadAhead(() => incoming.next())
    try {
      // The first batch is read while the store is restored.
      ahead.begin()
      if (!(await restorePriority.first(() => this.#catchUp(ahead, signal)))) return
      for (;;) {
        const { done: over, value: batch } = await ahead.take()
        if (over === true) return
        const taken = clock.monotonic()
        if (!(await this.#commit(batch, signal))) return
        const times = { tookMs: clock.monotonic() - taken, maxGatherMs: log.maxGatherMs }
        const rest = restAfter(batch, times, limits)
        if (rest > 0) await clock.sleep(rest, signal)
      }
    } finally {
      ended.abort()
      await incoming.return?.()
    }
  }

  /** Restores the store, and commits the first batch of what came meanwhile. False when `signal` aborted. */
  async #catchUp(ahead: ReadAhead<IteratorResult<Batch>>, signal: AbortSignal): Promise<boolean> {
    const { clock, logger } = this.#parts
    const { partition } = this.#claim
    const began = clock.monotonic()
    const restoring = this.#restore(signal)
    // Asked after the restore's own first question, and awaited after the restore.
    const refreshing = this.#refreshInputEnd()
    refreshing.catch(() => {})
    if (!(await restoring)) return false
    await refreshing
    this.#move('running')
    this.#metrics.restoreTook(clock.monotonic() - began)
    if (this.store.count === undefined) await this.store.recount()
    this.#gauge()
    const { input } = this.#committer
    logger.info({ partition, input, lag: this.lag, devices: this.store.count }, 'partition running')
    if (this.lag === 0) return true
    const { done, value: batch } = await ahead.take()
    return done !== true && (await this.#commit(batch, signal))
  }

  #restore(signal: AbortSignal): Promise<boolean> {
    const { progress } = this.copy
    const { input, changelogEnd } = this.#committer
    progress.start(this.store.checkpoint?.changelog ?? 0, changelogEnd)
    return followChangelog(
      this.#parts,
      {
        partition: this.#claim.partition,
        copy: this.copy,
        metrics: this.#metrics,
        until: { input, changelogEnd },
        yields: false,
        onProgress: (position) => {
          progress.reached(position, changelogEnd)
          this.#metrics.restoreRemaining(progress.remaining)
        },
      },
      signal,
    )
  }

  /** Commits a batch, in parts if it must. False when `signal` aborted before the store held all of it. */
  async #commit(batch: Batch, signal: AbortSignal): Promise<boolean> {
    let left: readonly LogRecord[] | undefined = batch.records
    do {
      const records: readonly LogRecord[] = left
      left = await this.#parts.inFlight.run(this.#weight(records.length), signal, async () => {
        if (signal.aborted) return undefined
        this.#inputEnd = batch.end
        return this.#committer.commit(records, batch, signal)
      })
    } while (left !== undefined && left.length > 0)
    return left !== undefined
  }

  /** Large statuses weigh more than their records: as many as fill a commit count as a full batch. */
  #weight(records: number): number {
    const { batchRecords, statusBytes } = this.#parts.limits
    const share = Math.min(1, (records * this.#committer.bytesPerRecord) / statusBytes)
    return Math.max(records, Math.ceil(share * batchRecords))
  }

  #onCommitted(commit: Commit): void {
    this.copy.waiters.reached(this.#committer.input)
    this.#metrics.committed(commit)
    if (commit.receivedAt !== undefined) this.#parts.latency.observe(this.#claim.partition, commit.receivedAt)
    this.#gauge()
  }

  /**
   * A fault of the store, or of the log outside a commit, ends neither the claim nor the task: true when the work can start
   * over from the committed positions.
   */
  async #recover(error: unknown, signal: AbortSignal): Promise<boolean> {
    const { clock, writer, limits, logger } = this.#parts
    const { input, pendingSince } = this.#committer
    const { partition } = this.#claim
    if (error instanceof RetryableError && error.code === 'STORE_UNAVAILABLE') {
      logger.error({ partition, err: error }, 'store cannot be read: trying again')
      await clock.sleep(limits.retryMaxMs, signal)
    } else if (error instanceof RetryableError && error.code === 'LOG_UNAVAILABLE' && pendingSince === undefined) {
      if (signal.aborted) return true
      logger.warn({ partition, err: error }, 'the log cannot be read: trying again')
      await clock.sleep(limits.retryMinMs, signal)
    } else if (error instanceof LogCorruptedError) {
      // Damaged on its way, or on the leader's disk: this partition waits for another leader, and no other partition does.
      logger.error({ partition, err: error }, 'the log is damaged: trying again')
      await clock.sleep(limits.retryMaxMs, signal)
    } else if (isBeyondUse(error, this.#state === 'restoring')) {
      // A store that is damaged again before anything was committed would be wiped for ever.
      if (this.#wipedAt === input) return false
      this.#wipedAt = input
      logger.error({ partition, err: error }, 'store wiped: it is damaged')
      await writer.persist(partition, () => this.store.wipe(), signal)
    } else {
      return false
    }
    if (this.#state === 'running') this.#move('restoring')
    return true
  }

  #gauge(): void {
    this.#metrics.lag(this.waiting)
    this.#metrics.devices(devicesIn(this.store))
  }

  #move(to: RoleState): void {
    assert(LEGAL_MOVES[this.#state].includes(to), `a task cannot go from ${this.#state} to ${to}`)
    this.#state = to
  }
}
