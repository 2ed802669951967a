import assert from 'node:assert/strict'
import { FencedError, isBeyondUse, LogCorruptedError, RetryableError } from '../contract/errors.ts'
import type { Slice } from '../contract/query.ts'
import type { ProcessorLimits } from '../limits.ts'
import type { Batch, Claim, LogRecord, NewRecord, Offset } from '../log/log.ts'
import { say } from '../metrics.ts'
import { ReadAhead } from '../runtime/read-ahead.ts'
import type { StateStore } from '../store/store.ts'
import { type Effects, foldBatch } from './batch.ts'
import type { Progress } from './progress.ts'
import { confirm, followChangelog, HEADER_DEVICES, HEADER_INPUT } from './restore.ts'
import { devicesIn, type PartitionCopy, persist, type Role, type RoleContext, type RoleState } from './role.ts'
import { ReadSize } from './touched-devices.ts'

/**
 * While its batches are small a partition gathers records for so many times as long as a batch took it. A commit of few records
 * may cost the log as much as one of many: without a pause, those on Kafka filled two cores at 2,000 records a second.
 */
const GATHER = 8

/**
 * How long a partition waits, ms, after a batch that took `tookMs`, before it takes what has come meanwhile: not at all
 * while more records wait than the batch had. `maxGatherMs`: of the log.
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
 * A commit that takes longer, ms, may have been made without this owner knowing: its standbys may be ahead of it. Much
 * less than the time after which readers go to a standby because the owner is late, and more than most commits take.
 */
const DOUBT_MS = 100

/** Devices named in one line of the log. */
const MAX_NAMED = 10

/** A damaged store is wiped and restored while running; nothing follows the end. */
const LEGAL_MOVES: Readonly<Record<RoleState, readonly RoleState[]>> = {
  restoring: ['running', 'closed'],
  running: ['restoring', 'closed'],
  closed: [],
}

/** The active work on one partition, for one claim: brings the store up to date, then folds what comes in. */
export class Task implements Role {
  readonly kind = 'owner'
  readonly store: StateStore
  readonly copy: PartitionCopy
  readonly progress: Progress
  readonly #context: RoleContext
  readonly #claim: Claim
  readonly #labels: { readonly processor: string; readonly partition: number }
  #state: RoleState = 'restoring'
  /** Committed: the next input offset to read, and the end of the changelog. */
  #input: Offset
  #changelogEnd: Offset
  /** Undefined where the log did not tell it with the claim, until it has been seen. */
  #inputEnd: Offset | undefined
  /** Batches begun, and batches whose effects are in the store. */
  #batch = 0
  #stored = 0
  /** Since when, on the monotonic clock, what the batch comes to is being committed and stored. */
  #committing: number | undefined
  #wipedAt: Offset | undefined
  #signal: AbortSignal | undefined
  /** Holds the cached statuses: those of a life that ended within a batch are not what is committed. */
  #life: object = {}
  readonly #reads = new ReadSize()
  /** JSON of the statuses that a record touches, bytes: in the last commit, on average. */
  #recordBytes = 0
  /** Whose the texts of these statuses are. */
  #texts: number

  constructor(context: RoleContext, claim: Claim, copy: PartitionCopy) {
    this.#context = context
    this.#claim = claim
    this.store = copy.store
    this.copy = copy
    this.progress = copy.progress
    this.#labels = { processor: context.instance, partition: claim.partition }
    this.#texts = context.texts.owner()
    this.#input = claim.start.input
    this.#changelogEnd = claim.start.changelogEnd
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
    return this.#committing !== undefined && this.#context.monotonic() - this.#committing >= DOUBT_MS
  }

  get lag(): number {
    // At least what the claim says is committed there was.
    return Math.max(0, (this.#inputEnd ?? this.#input) - (this.store.checkpoint?.input ?? 0))
  }

  get waiting(): number | undefined {
    // What the store lacks of the committed input comes from the changelog: of the input nothing waits for that.
    if (this.#state !== 'restoring') return this.lag
    return this.#inputEnd === undefined ? undefined : Math.max(0, this.#inputEnd - this.#input)
  }

  async sight(): Promise<void> {
    await this.#look()
    if (this.#state === 'closed') return
    // As long as the claim is held nobody else commits. What a reader finds at the end may be markers.
    if (!this.doubtful) await confirm(this.#context, this.store, this.#changelogEnd, this.#context.now())
  }

  async #look(): Promise<void> {
    const { end } = await this.#context.log.bounds({ topic: 'telemetry', index: this.#claim.partition })
    this.#inputEnd = Math.max(this.#inputEnd ?? 0, end)
    if (this.#state !== 'closed') this.#gauge()
  }

  committed(deviceId: string): Slice | undefined {
    const { cache, texts } = this.#context
    const text = texts.get(deviceId, this.#texts)
    if (text !== undefined) return text
    const entry = cache.get(deviceId, this.#life)
    if (entry === undefined || entry.batch > this.#stored) return undefined
    return texts.add(deviceId, this.#texts, entry.image, entry.bytes)
  }

  /**
   * Resolves after `signal` aborted, when no more effect follows. Rejects with FencedError or RetryableError when the
   * claim is over, and when what is in the log or the store cannot be continued from.
   */
  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal
    const { logger, metrics, instance } = this.#context
    const { partition, epoch } = this.#claim
    logger.info({ partition, epoch, input: this.#input }, 'partition taken')
    metrics.partitions.of(instance).add(this)
    try {
      while (!signal.aborted) {
        try {
          return await this.#live(signal)
        } catch (error) {
          if (!(await this.#mend(error, signal))) throw error
        }
      }
    } catch (error) {
      if (error instanceof FencedError) metrics.fenced.inc({ processor: instance })
      logger.warn({ partition, epoch, err: error }, 'partition dropped')
      throw error
    } finally {
      this.#move('closed')
      this.progress.rest(this.#changelogEnd)
      metrics.partitions.of(instance).delete(this)
      metrics.lag.remove(this.#labels)
      const labels = { ...this.#labels, role: 'owner' }
      for (const gauge of [metrics.devices, metrics.restoreRemaining]) gauge.remove(labels)
      logger.info({ partition, epoch, input: this.#input }, 'partition released')
    }
  }

  async #live(signal: AbortSignal): Promise<void> {
    const { log, limits, restorePriority, monotonic, sleep } = this.#context
    this.#life = {}
    this.#committing = undefined
    this.#texts = this.#context.texts.owner()
    const telemetry = { topic: 'telemetry', index: this.#claim.partition } as const
    const batchLimits = { maxRecords: limits.batchRecords, maxBytes: limits.batchBytes }
    const ended = new AbortController()
    const reading = AbortSignal.any([signal, ended.signal])
    const incoming = log.follow(telemetry, this.#input, batchLimits, reading)[Symbol.asyncIterator]()
    const ahead = new ReadAhead(() => incoming.next())
    try {
      // What waits to be folded is on its way while the store is brought to where it begins.
      ahead.begin()
      if (!(await restorePriority.first(() => this.#catchUp(ahead, signal)))) return
      for (;;) {
        const { done: over, value: batch } = await ahead.take()
        if (over === true) return
        const taken = monotonic()
        if (!(await this.#process(batch, signal))) return
        const times = { tookMs: monotonic() - taken, maxGatherMs: log.maxGatherMs }
        const rest = restAfter(batch, times, limits)
        if (rest > 0) await sleep(rest, signal)
      }
    } finally {
      ended.abort()
      await incoming.return?.()
    }
  }

  /** Restores, and processes the first of what came in meanwhile. False when `signal` aborted. */
  async #catchUp(ahead: ReadAhead<IteratorResult<Batch>>, signal: AbortSignal): Promise<boolean> {
    const { logger, metrics, instance, monotonic } = this.#context
    const { partition } = this.#claim
    const began = monotonic()
    const restoring = this.#restore(signal)
    // Asked for after what the restore asks first, and awaited when it is done.
    const looking = this.#look()
    looking.catch(() => {})
    if (!(await restoring)) return false
    await looking
    this.#move('running')
    metrics.restoreSeconds.observe({ processor: instance, role: 'owner' }, (monotonic() - began) / 1000)
    if (this.store.count === undefined) await this.store.recount()
    this.#gauge()
    logger.info({ partition, input: this.#input, lag: this.lag, devices: this.store.count }, 'partition running')
    if (this.lag === 0) return true
    const { done, value: batch } = await ahead.take()
    return done !== true && (await this.#process(batch, signal))
  }

  /**
   * What went wrong in the store, or was not a commit, concerns this copy, not the claim: true when the work can begin
   * again.
   */
  async #mend(error: unknown, signal: AbortSignal): Promise<boolean> {
    const { logger, limits, sleep } = this.#context
    const { partition } = this.#claim
    if (error instanceof RetryableError && error.code === 'STORE_UNAVAILABLE') {
      logger.error({ partition, err: error }, 'store cannot be read: trying again')
      await sleep(limits.retryMaxMs, signal)
    } else if (error instanceof RetryableError && error.code === 'LOG_UNAVAILABLE' && this.#committing === undefined) {
      if (signal.aborted) return true
      logger.warn({ partition, err: error }, 'the log cannot be read: trying again')
      await sleep(limits.retryMinMs, signal)
    } else if (error instanceof LogCorruptedError) {
      // On its way, or on the disk of the leader: until another one leads this partition waits, and no other one does.
      logger.error({ partition, err: error }, 'the log is damaged: trying again')
      await sleep(limits.retryMaxMs, signal)
    } else if (isBeyondUse(error, this.#state === 'restoring')) {
      // A store that is damaged again before anything was committed would be wiped for ever.
      if (this.#wipedAt === this.#input) return false
      this.#wipedAt = this.#input
      logger.error({ partition, err: error }, 'store wiped: it is damaged')
      await persist(this.#context, partition, () => this.store.wipe(), signal)
    } else {
      return false
    }
    if (this.#state === 'running') this.#move('restoring')
    return true
  }

  #restore(signal: AbortSignal): Promise<boolean> {
    const { metrics } = this.#context
    const labels = { ...this.#labels, role: 'owner' }
    this.progress.restart(this.store.checkpoint?.changelog ?? 0, this.#changelogEnd)
    return followChangelog(
      {
        context: this.#context,
        partition: this.#claim.partition,
        copy: this.copy,
        until: { input: this.#input, changelogEnd: this.#changelogEnd },
        yields: false,
        onProgress: (position) => {
          this.progress.reached(position, this.#changelogEnd)
          say(metrics.restoreRemaining, labels, this.progress.remaining)
        },
        onWhole: () => {},
      },
      signal,
    )
  }

  /** False when `signal` aborted before the effects of the batch were committed and stored. */
  async #process(batch: Batch, signal: AbortSignal): Promise<boolean> {
    let left: readonly LogRecord[] | undefined = batch.records
    do {
      const records: readonly LogRecord[] = left
      left = await this.#context.inFlight.run(this.#weight(records.length), signal, () => {
        return this.#apply(records, batch, signal)
      })
    } while (left !== undefined && left.length > 0)
    return left !== undefined
  }

  /** What they touch may weigh more than the records: what fills a commit counts as a full batch. */
  #weight(records: number): number {
    const { batchRecords, statusBytes } = this.#context.limits
    const share = Math.min(1, (records * this.#recordBytes) / statusBytes)
    return Math.max(records, Math.ceil(share * batchRecords))
  }

  /** Gives those of `records`, the last ones of the batch, that are left for another commit; undefined when `signal` aborted. */
  async #apply(
    records: readonly LogRecord[],
    batch: Batch,
    signal: AbortSignal,
  ): Promise<readonly LogRecord[] | undefined> {
    if (signal.aborted) return undefined
    this.#inputEnd = batch.end
    const { cache, texts, turns, limits, metrics, logger, instance, receipts, monotonic } = this.#context
    const { partition, commitBytes: maxCommitBytes } = this.#claim
    const caches = { cache, texts, owner: this.#life, batch: ++this.#batch }
    const store = { store: this.store, reads: this.#reads, restored: this.#wipedAt !== undefined, maxCommitBytes }
    const turn = turns.take()
    const effects = await foldBatch(records, { partition, turn, maxBytes: limits.statusBytes, ...store, ...caches })
    if (signal.aborted) return undefined
    const { foreign } = effects
    if (foreign.length > 0) {
      const some = { partition, count: foreign.length, devices: foreign.slice(0, MAX_NAMED) }
      logger.error(some, 'what the changelog holds of devices is no status: they begin anew')
    }
    const left = records.slice(effects.records)
    const next = left[0]?.offset ?? batch.next
    this.#recordBytes = effects.bytes / Math.max(1, effects.records)
    const began = monotonic()
    const { changelog, deadLetters } = effects
    this.#label(changelog, next, effects.added)
    this.#committing = began
    const { changelogEnd } = await this.#claim.commit({ changelog, deadLetters, next, isPart: left.length > 0 })
    metrics.commitSeconds.observe({ processor: instance }, (monotonic() - began) / 1000)
    metrics.batchRecords.observe({ processor: instance }, effects.records)
    this.#input = next
    this.#changelogEnd = changelogEnd
    // Before the store, so that whoever sees the store past a write finds what became of it.
    this.copy.decisions.note(effects.decisions)
    if (!(await this.#keep(effects, signal))) return undefined
    this.#stored = this.#batch
    this.#committing = undefined
    this.copy.arrivals.reached(this.#input)
    metrics.records.inc(this.#labels, effects.records)
    for (const reason of effects.rejections) metrics.deadLetters.inc({ processor: instance, reason })
    for (const { outcome } of effects.decisions) metrics.decisions.inc({ processor: instance, outcome })
    const [first] = records
    if (first !== undefined) receipts.applied(partition, first.timestamp)
    this.#gauge()
    return left
  }

  #gauge(): void {
    const { metrics } = this.#context
    say(metrics.lag, this.#labels, this.waiting)
    say(metrics.devices, { ...this.#labels, role: 'owner' }, devicesIn(this.store))
  }

  #label(changelog: NewRecord[], next: Offset, added: number): void {
    const last = changelog.at(-1)
    if (last === undefined) return
    const headers: Record<string, string> = { [HEADER_INPUT]: String(next) }
    if (this.store.count !== undefined) headers[HEADER_DEVICES] = String(this.store.count + added)
    changelog[changelog.length - 1] = { ...last, headers: { ...last.headers, ...headers } }
  }

  #keep({ writes, added, moves }: Effects, signal: AbortSignal): Promise<boolean> {
    const reached = { input: this.#input, changelog: this.#changelogEnd, whole: true, since: this.#context.now() }
    const write = () => this.store.commit(writes, reached, added, moves)
    return persist(this.#context, this.#claim.partition, write, signal)
  }

  #move(to: RoleState): void {
    assert(LEGAL_MOVES[this.#state].includes(to), `a task cannot go from ${this.#state} to ${to}`)
    this.#state = to
  }
}
