import { isBeyondUse, LogCorruptedError, RetryableError } from '../contract/errors.ts'
import type { Copying, Offset } from '../log/log.ts'
import { CopyMetrics, type ProcessorMetrics } from '../metrics.ts'
import type { StateStore } from '../store/store.ts'
import { confirmWhole, followChangelog, type RestoreParts } from './restore.ts'
import { devicesIn, type PartitionCopy, type Role, type RoleState } from './role.ts'

/** How long a whole heir still comes before other copies, ms: until it is claimed nobody works on the partition. */
const CLAIMED_WITHIN_MS = 1_000

export interface StandbyParts extends RestoreParts {
  readonly instance: string
  readonly metrics: ProcessorMetrics
}

/** A warm copy of a partition that another member owns: a restore that never ends. */
export class Standby implements Role {
  readonly kind = 'standby'
  readonly doubtful = false
  readonly store: StateStore
  readonly copy: PartitionCopy
  readonly #parts: StandbyParts
  readonly #partition: number
  readonly #copying: Copying
  readonly #metrics: CopyMetrics
  #state: RoleState = 'restoring'
  /** The store was wiped, and has not been whole since. */
  #wiped = false
  /** What the group was told last of whether the copy is whole. */
  #toldWhole = false
  /** Where the changelog ended after the last refused write: there the copy is whole again. */
  #goal: Offset | undefined

  constructor(parts: StandbyParts, partition: number, copy: PartitionCopy, copying: Copying) {
    this.#parts = parts
    this.#partition = partition
    this.#copying = copying
    this.#metrics = new CopyMetrics(parts.metrics, { processor: parts.instance, partition, role: 'standby' })
    this.copy = copy
    this.store = copy.store
  }

  get state(): RoleState {
    return this.#state
  }

  get held(): boolean {
    return this.#copying.held
  }

  get lag(): number | undefined {
    return this.copy.progress.remaining
  }

  get waiting(): number | undefined {
    return this.lag
  }

  async refreshLag(): Promise<void> {
    const { log, clock, writer } = this.#parts
    const at = clock.now()
    const { end } = await log.bounds({ topic: 'status', index: this.#partition })
    this.copy.progress.sawEnd(end)
    if (this.#state === 'closed') return
    this.#gauge()
    if (!this.#toldWhole && !writer.isFailing(this.#partition)) this.#goal ??= end
    this.#checkGoal()
    await confirmWhole(this.store, log.deleteRetentionMs, { end, at })
  }

  /** A standby folds nothing, so it caches no status. */
  cached(): undefined {
    return undefined
  }

  /**
   * Resolves after `signal` aborted; while the log does not answer, the copy stays readable. Rejects when the store cannot
   * be brought to hold what the changelog holds.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, writer, limits, logger } = this.#parts
    const partition = this.#partition
    this.#metrics.open(this)
    try {
      while (!signal.aborted) {
        try {
          await this.#follow(signal)
        } catch (error) {
          const damaged = error instanceof LogCorruptedError
          if (damaged || error instanceof RetryableError) {
            if (signal.aborted) return
            logger.warn({ partition, err: error }, 'the changelog cannot be read: trying again')
            await clock.sleep(damaged ? limits.retryMaxMs : limits.retryMinMs, signal)
            continue
          }
          // Wiping helps once: a second time the changelog itself must be damaged.
          if (!isBeyondUse(error, true) || this.#wiped) throw error
          this.#wiped = true
          this.#state = 'restoring'
          this.#tell(false)
          logger.error({ partition, err: error }, 'store wiped: it is damaged')
          await writer.persist(partition, () => this.store.wipe(), signal)
        }
      }
    } finally {
      this.#state = 'closed'
      this.copy.progress.stop()
      this.#metrics.close(this)
      logger.info({ partition }, 'standby ended')
    }
  }

  /** An heir comes before other copies until it is claimed. */
  async #follow(signal: AbortSignal): Promise<void> {
    const { clock, restorePriority } = this.#parts
    if (!this.#copying.heir) return this.#copy(signal, () => {})
    const whole = Promise.withResolvers<void>()
    const ended = new AbortController()
    const first = restorePriority.first(async () => {
      await whole.promise
      await clock.sleep(CLAIMED_WITHIN_MS, ended.signal)
    })
    try {
      await this.#copy(signal, whole.resolve)
    } finally {
      whole.resolve()
      ended.abort()
      await first
    }
  }

  async #copy(signal: AbortSignal, onWhole: () => void): Promise<void> {
    const { clock, logger } = this.#parts
    const partition = this.#partition
    const { progress } = this.copy
    const began = clock.monotonic()
    progress.start(this.store.checkpoint?.changelog ?? 0)
    await followChangelog(
      this.#parts,
      {
        partition,
        copy: this.copy,
        metrics: this.#metrics,
        until: undefined,
        yields: !this.#copying.heir,
        onProgress: (position, end) => {
          progress.reached(position, end)
          this.#gauge()
          this.#checkGoal()
        },
        onWhole: () => {
          this.#state = 'running'
          this.#gauge()
          this.#wiped = false
          this.#metrics.restoreTook(clock.monotonic() - began)
          logger.info({ partition, devices: this.store.count }, 'standby running')
          onWhole()
          this.#tell(true)
        },
        onSetback: () => this.#tell(false),
      },
      signal,
    )
  }

  /**
   * A store may have refused writes for hours, and batches read ahead do not tell where the changelog ends since. So the
   * copy counts as whole only from the end that `refreshLag` found.
   */
  #checkGoal(): void {
    const { checkpoint } = this.store
    if (this.#goal === undefined || this.#state !== 'running' || checkpoint?.whole !== true) return
    if (checkpoint.changelog >= this.#goal) this.#tell(true)
  }

  #tell(whole: boolean): void {
    this.#goal = undefined
    if (whole === this.#toldWhole) return
    this.#toldWhole = whole
    this.#copying.whole(whole)
  }

  #gauge(): void {
    this.#metrics.lag(this.lag)
    this.#metrics.restoreRemaining(this.#state === 'running' ? 0 : this.lag)
    this.#metrics.devices(devicesIn(this.store))
  }
}
