import { isBeyondUse, LogCorruptedError, RetryableError } from '../contract/errors.ts'
import type { Copying, Offset } from '../log/log.ts'
import { say } from '../metrics.ts'
import type { StateStore } from '../store/store.ts'
import type { Progress } from './progress.ts'
import { confirm, followChangelog } from './restore.ts'
import { devicesIn, type PartitionCopy, persist, type Role, type RoleContext, type RoleState } from './role.ts'

/** For how long an heir that is whole comes before other copies still, ms: until it is claimed nobody works on the partition. */
const CLAIMED_WITHIN_MS = 1_000

/** A warm copy of a partition that another member owns: a restore that never ends. */
export class Standby implements Role {
  readonly kind = 'standby'
  readonly doubtful = false
  readonly store: StateStore
  readonly copy: PartitionCopy
  readonly progress: Progress
  readonly #context: RoleContext
  readonly #partition: number
  readonly #copying: Copying
  #state: RoleState = 'restoring'
  /** And not whole since. */
  #wiped = false
  /** What was told last of whether it is whole. */
  #told = false
  /** Where the changelog ended after the last write that was refused. */
  #goal: Offset | undefined

  constructor(context: RoleContext, partition: number, copy: PartitionCopy, copying: Copying) {
    this.#context = context
    this.#partition = partition
    this.#copying = copying
    this.copy = copy
    this.store = copy.store
    this.progress = copy.progress
  }

  get state(): RoleState {
    return this.#state
  }

  get held(): boolean {
    return this.#copying.held
  }

  get lag(): number | undefined {
    return this.progress.remaining
  }

  get waiting(): number | undefined {
    return this.lag
  }

  async sight(): Promise<void> {
    const at = this.#context.now()
    const { end } = await this.#context.log.bounds({ topic: 'status', index: this.#partition })
    this.progress.sighted(end)
    if (this.#state === 'closed') return
    this.#gauge()
    if (!this.#told && !this.#context.faults.has(this.#partition)) this.#goal ??= end
    this.#recover()
    await confirm(this.#context, this.store, end, at)
  }

  /** A standby folds nothing, so it has no decoded status. */
  committed(): undefined {
    return undefined
  }

  /** Resolves after `signal` aborted; while the log does not answer, what is here is kept readable. Rejects when the store cannot be brought to hold what the changelog holds. */
  async run(signal: AbortSignal): Promise<void> {
    const { logger, metrics, instance, limits, sleep } = this.#context
    const partition = this.#partition
    metrics.partitions.of(instance).add(this)
    try {
      while (!signal.aborted) {
        try {
          await this.#follow(signal)
        } catch (error) {
          const damaged = error instanceof LogCorruptedError
          if (damaged || error instanceof RetryableError) {
            if (signal.aborted) return
            logger.warn({ partition, err: error }, 'the changelog cannot be read: trying again')
            await sleep(damaged ? limits.retryMaxMs : limits.retryMinMs, signal)
            continue
          }
          // Wiping helps once: a changelog that is damaged itself is not mended by reading it again.
          if (!isBeyondUse(error, true) || this.#wiped) throw error
          this.#wiped = true
          this.#state = 'restoring'
          this.#tell(false)
          logger.error({ partition, err: error }, 'store wiped: it is damaged')
          await persist(this.#context, partition, () => this.store.wipe(), signal)
        }
      }
    } finally {
      this.#state = 'closed'
      this.progress.rest()
      metrics.partitions.of(instance).delete(this)
      const labels = { processor: instance, partition }
      metrics.standbyLag.remove(labels)
      for (const gauge of [metrics.devices, metrics.restoreRemaining]) gauge.remove({ ...labels, role: 'standby' })
      logger.info({ partition }, 'standby ended')
    }
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { restorePriority, sleep } = this.#context
    if (!this.#copying.heir) return this.#copy(signal, () => {})
    const whole = Promise.withResolvers<void>()
    const ended = new AbortController()
    const first = restorePriority.first(async () => {
      await whole.promise
      await sleep(CLAIMED_WITHIN_MS, ended.signal)
    })
    try {
      await this.#copy(signal, whole.resolve)
    } finally {
      whole.resolve()
      ended.abort()
      await first
    }
  }

  async #copy(signal: AbortSignal, whole: () => void): Promise<void> {
    const { logger, metrics, instance, monotonic } = this.#context
    const partition = this.#partition
    const began = monotonic()
    this.progress.restart(this.store.checkpoint?.changelog ?? 0)
    await followChangelog(
      {
        context: this.#context,
        partition,
        copy: this.copy,
        until: undefined,
        yields: !this.#copying.heir,
        onProgress: (position, end) => {
          this.progress.reached(position, end)
          this.#gauge()
          this.#recover()
        },
        onWhole: () => {
          this.#state = 'running'
          this.#gauge()
          this.#wiped = false
          metrics.restoreSeconds.observe({ processor: instance, role: 'standby' }, (monotonic() - began) / 1000)
          logger.info({ partition, devices: this.store.count }, 'standby running')
          whole()
          this.#tell(true)
        },
        onSetback: () => this.#tell(false),
      },
      signal,
    )
  }

  /** A store may have refused writes for hours. What is read next was read ahead: it does not tell what came in meanwhile. */
  #recover(): void {
    const { checkpoint } = this.store
    if (this.#goal === undefined || this.#state !== 'running' || checkpoint?.whole !== true) return
    if (checkpoint.changelog >= this.#goal) this.#tell(true)
  }

  #tell(whole: boolean): void {
    this.#goal = undefined
    if (whole === this.#told) return
    this.#told = whole
    this.#copying.whole(whole)
  }

  #gauge(): void {
    const { metrics, instance } = this.#context
    const labels = { processor: instance, partition: this.#partition }
    say(metrics.standbyLag, labels, this.lag)
    say(metrics.restoreRemaining, { ...labels, role: 'standby' }, this.#state === 'running' ? 0 : this.lag)
    say(metrics.devices, { ...labels, role: 'standby' }, devicesIn(this.store))
  }
}
