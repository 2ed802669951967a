import { followChangelog } from './changelog.ts'
import { CorruptedError } from './contract/errors.ts'
import { persist, type Role, type RoleContext } from './role.ts'
import type { StateStore } from './store/store.ts'

/** A warm copy of a partition that another member owns: a restore that never ends. */
export class Standby implements Role {
  readonly kind = 'standby'
  readonly store: StateStore
  readonly #context: RoleContext
  readonly #partition: number
  #state: 'restoring' | 'running' | 'closed' = 'restoring'
  #lag = 0
  /** And not whole since. */
  #wiped = false

  constructor(context: RoleContext, partition: number, store: StateStore) {
    this.#context = context
    this.#partition = partition
    this.store = store
  }

  get state(): 'restoring' | 'running' | 'closed' {
    return this.#state
  }

  get lag(): number {
    return this.#lag
  }

  /** A standby folds nothing, so it has no decoded status. */
  committed(): undefined {
    return undefined
  }

  /** Resolves after `signal` aborted. Rejects when the store cannot be brought to hold what the changelog holds. */
  async run(signal: AbortSignal): Promise<void> {
    const { logger, metrics, instance } = this.#context
    const partition = this.#partition
    const labels = { instance, partition }
    try {
      while (!signal.aborted) {
        try {
          await this.#follow(signal)
        } catch (error) {
          // Wiping helps once: a changelog that is damaged itself is not mended by reading it again.
          if (!(error instanceof CorruptedError) || this.#wiped) throw error
          this.#wiped = true
          this.#state = 'restoring'
          logger.error({ partition, err: error }, 'store wiped: it is damaged')
          await persist(this.#context, partition, () => this.store.wipe(), signal)
        }
      }
    } finally {
      this.#state = 'closed'
      metrics.restoreRemaining.remove(labels)
      metrics.devices.remove(labels)
      logger.info({ partition }, 'standby ended')
    }
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { logger, metrics, instance } = this.#context
    const partition = this.#partition
    const labels = { instance, partition }
    await followChangelog(
      {
        context: this.#context,
        partition,
        store: this.store,
        until: undefined,
        onProgress: (position, end) => {
          this.#lag = Math.max(0, end - position)
          metrics.restoreRemaining.set(labels, this.#lag)
          metrics.devices.set(labels, this.store.count ?? 0)
        },
        onWhole: () => {
          this.#state = 'running'
          this.#wiped = false
          logger.info({ partition, devices: this.store.count }, 'standby running')
        },
      },
      signal,
    )
  }
}
