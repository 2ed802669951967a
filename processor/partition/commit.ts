import type { Logger } from 'pino'
import type { RejectionReason } from '../contract/dead-letter.ts'
import { ownCopy } from '../contract/json.ts'
import type { Slice } from '../contract/query.ts'
import type { Batch, Claim, LogRecord, NewRecord, Offset } from '../log/log.ts'
import type { Turns } from '../runtime/turns.ts'
import type { StatusCache } from '../store/status-cache.ts'
import { type Effects, foldBatch } from './batch.ts'
import { ReadSize } from './batch-devices.ts'
import type { PartitionCopy, RoleClock } from './role.ts'
import type { StoreWriter } from './store-writer.ts'
import type { Decision } from './waiters.ts'

/*
 * The commit protocol: the only way in which the owner of a partition moves it forward.
 *
 *     records --> decode, fold --> claim.commit --> store.commit --> onCommitted
 *                 (memory)         (the log)        (RocksDB)        (waiting readers, metrics)
 *
 * claim.commit is atomic in the log: the changelog records, the dead letters and the next input offset appear together
 * or not at all. The log refuses every epoch of the claim but the newest, so a fenced owner fails here with FencedError,
 * before it has written anything: it can change neither the log nor, as store.commit never runs, its store.
 *
 * store.commit is atomic in RocksDB: statuses, index entries and the checkpoint are one batch. It runs only after
 * claim.commit has resolved, with exactly what that committed: the store is never ahead of the changelog, so a restart
 * never has to undo anything. It resumes at the checkpoint.
 *
 * What kill -9 leaves, and what the next owner does. Wherever it runs, it first takes a new claim: that fences the old
 * owner, ends its open transaction, and tells the committed input offset with the changelog end committed beside it.
 *
 * | killed             | the log          | the store          | the next owner                                      |
 * |--------------------|------------------|--------------------|-----------------------------------------------------|
 * | during the fold    | without batch    | without batch      | reads the same input again                          |
 * | in claim.commit    | whole, or none   | without batch      | none: as above; whole: as below                     |
 * | after claim.commit | with the batch   | one batch behind   | restores the batch from the changelog, then goes on |
 * | in store.commit    | with the batch   | whole, or none     | the checkpoint tells which: as above, or as below   |
 * | after store.commit | with the batch   | with the batch     | goes on with the next input                         |
 *
 * The store of a standby takes the place of the killed one in the same way: it may only be further behind.
 *
 * Without a crash: a claim.commit that rejects with RetryableError has an unknown outcome, so the claim ends, and the
 * next claim learns the outcome from the log ("in claim.commit"). A store that refuses a write is tried until it takes
 * it: no later batch may be stored before this one.
 */

/** Headers of the last changelog record of a commit: the input offset committed with it, and the devices there are then. */
export const HEADER_INPUT = 'input'
export const HEADER_DEVICES = 'devices'

/** Devices named in one line of the log. */
const MAX_NAMED = 10

/** A commit that the log and the store both hold. */
export interface Commit {
  /** How many records of telemetry it applied; at least one, but for a batch without records. */
  readonly records: number
  /** When the first of them was received, epoch ms. */
  readonly receivedAt: number | undefined
  /** How long claim.commit took, ms. */
  readonly tookMs: number
  readonly rejections: readonly RejectionReason[]
  readonly decisions: readonly Decision[]
}

export interface CommitterOptions {
  readonly claim: Claim
  readonly copy: PartitionCopy
  readonly writer: StoreWriter
  readonly statuses: StatusCache
  readonly turns: Turns
  /** JSON bytes of the statuses that one commit may start from. */
  readonly statusBytes: number
  readonly clock: RoleClock
  readonly logger: Logger
  readonly onCommitted: (commit: Commit) => void
}

/** Commits the batches of one claim, one after the other. */
export class Committer {
  readonly #options: CommitterOptions
  /** The committed positions: the next input offset, and the end of the changelog. */
  #input: Offset
  #changelogEnd: Offset
  #pendingSince: number | undefined
  /** Numbers of the batch folded last, and of the last one in the store: cached statuses of a later one are uncommitted. */
  #batch = 0
  #stored = 0
  /** The owner of this committer's entries in the cache. */
  #cacheOwner: object = {}
  #restored = false
  readonly #reads = new ReadSize()
  #bytesPerRecord = 0

  constructor(options: CommitterOptions) {
    this.#options = options
    this.#input = options.claim.start.input
    this.#changelogEnd = options.claim.start.changelogEnd
  }

  get input(): Offset {
    return this.#input
  }

  get changelogEnd(): Offset {
    return this.#changelogEnd
  }

  /** Since when, on the monotonic clock, a commit has been under way or of unknown outcome; undefined: all is stored. */
  get pendingSince(): number | undefined {
    return this.#pendingSince
  }

  /** JSON bytes of the statuses that a record of the last commit touched, on average. */
  get bytesPerRecord(): number {
    return this.#bytesPerRecord
  }

  /**
   * Forgets all cached statuses: a batch that failed halfway has changed them. `restored`: the store has been rebuilt from
   * the changelog, so what is no JSON in it is no damage of the store.
   */
  restart(restored: boolean): void {
    this.#cacheOwner = {}
    this.#pendingSince = undefined
    this.#restored = restored
  }

  /** The committed status of a device, if it is cached. */
  cached(deviceId: string): Slice | undefined {
    const entry = this.#options.statuses.get(deviceId, this.#cacheOwner)
    if (entry === undefined || entry.batch > this.#stored) return undefined
    entry.json ??= ownCopy(entry.status.encode())
    return { buffer: entry.json, start: 0, end: entry.bytes }
  }

  /**
   * Commits `records`, the rest of `batch`, or as many of them as fit. Resolves with those left for another commit, or with
   * undefined if `signal` aborted before the store held the commit.
   */
  async commit(
    records: readonly LogRecord[],
    batch: Batch,
    signal: AbortSignal,
  ): Promise<readonly LogRecord[] | undefined> {
    const { claim, copy, writer, clock, onCommitted } = this.#options
    const effects = await this.#fold(records, signal)
    if (effects === undefined) return undefined
    const { changelog, deadLetters, rejections, decisions, writes, added, moves } = effects
    const left = records.slice(effects.records)
    const next = left[0]?.offset ?? batch.next

    const began = clock.monotonic()
    label(changelog, next, copy.store.count === undefined ? undefined : copy.store.count + added)
    this.#pendingSince = began
    const { changelogEnd } = await claim.commit({ changelog, deadLetters, next, isPart: left.length > 0 })
    const tookMs = clock.monotonic() - began
    this.#input = next
    this.#changelogEnd = changelogEnd

    // Before the store: a reader who sees the store past a write must find the write's outcome.
    copy.outcomes.note(decisions)
    const reached = { input: next, changelog: changelogEnd, whole: true, since: clock.now() }
    const write = () => copy.store.commit(writes, reached, added, moves)
    if (!(await writer.persist(claim.partition, write, signal))) return undefined
    this.#stored = this.#batch
    this.#pendingSince = undefined

    onCommitted({ records: effects.records, receivedAt: records[0]?.timestamp, tookMs, rejections, decisions })
    return left
  }

  async #fold(records: readonly LogRecord[], signal: AbortSignal): Promise<Effects | undefined> {
    const { claim, copy, statuses, turns, statusBytes, logger } = this.#options
    const { partition, commitBytes } = claim
    const effects = await foldBatch(records, {
      partition,
      store: copy.store,
      cache: statuses,
      turn: turns.take(),
      owner: this.#cacheOwner,
      batch: ++this.#batch,
      maxBytes: statusBytes,
      maxCommitBytes: commitBytes,
      reads: this.#reads,
      restored: this.#restored,
    })
    if (signal.aborted) return undefined
    const { foreign } = effects
    if (foreign.length > 0) {
      const some = { partition, count: foreign.length, devices: foreign.slice(0, MAX_NAMED) }
      logger.error(some, 'what the changelog holds of devices is no status: they begin anew')
    }
    this.#bytesPerRecord = effects.bytes / Math.max(1, effects.records)
    return effects
  }
}

/** Whoever follows the changelog alone learns the input offset and the number of devices from these headers. */
function label(changelog: NewRecord[], input: Offset, devices: number | undefined): void {
  const last = changelog.at(-1)
  if (last === undefined) return
  const headers: Record<string, string> = { ...last.headers, [HEADER_INPUT]: String(input) }
  if (devices !== undefined) headers[HEADER_DEVICES] = String(devices)
  changelog[changelog.length - 1] = { ...last, headers }
}
