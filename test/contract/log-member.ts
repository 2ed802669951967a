import type { Offset } from '../../processor/contract/record.ts'
import type { Claim, Copying, Log, LogRecord, Member, Topic } from '../../processor/log/log.ts'
import { aborted } from '../../processor/runtime/pause.ts'

export interface RoleHooks {
  /** The work of an active role; without it the role only waits for its end. */
  active?(claim: Claim, signal: AbortSignal): Promise<void>
  standby?(partition: number, signal: AbortSignal, copying: Copying): Promise<void>
}

/** A member that notes what the log asks of it. */
export class TestMember implements Member {
  readonly instance: string
  readonly endpoint: string
  /** Roles that run now. */
  readonly claims = new Map<number, Claim>()
  readonly standbys = new Set<number>()
  /** Everything that happened, in order: 'active 3', 'end active 3', 'standby 3', 'end standby 3'. */
  readonly events: string[] = []
  /** Whether two roles of one partition ever ran here at once. */
  overlapped = false
  readonly warm = new Map<number, Offset>()
  readonly #hooks: RoleHooks
  readonly #leaving = new AbortController()
  /** 'in', 'left', or what join() rejected with. */
  outcome: 'in' | 'left' | Error = 'in'
  #done: Promise<void> | undefined

  constructor(instance: string, hooks: RoleHooks = {}) {
    this.instance = instance
    this.endpoint = `${instance}:1`
    this.#hooks = hooks
  }

  join(log: Log): this {
    this.#done = this.#take(log)
    return this
  }

  async #take(log: Log): Promise<void> {
    try {
      await log.join(this, this.#leaving.signal)
      this.outcome = 'left'
    } catch (error) {
      this.outcome = error as Error
    }
  }

  async leave(): Promise<void> {
    this.#leaving.abort()
    await this.#done
  }

  positions(): ReadonlyMap<number, Offset> {
    return this.warm
  }

  async active(claim: Claim, signal: AbortSignal): Promise<void> {
    const partition = claim.partition
    if (this.claims.has(partition) || this.standbys.has(partition)) this.overlapped = true
    this.claims.set(partition, claim)
    this.events.push(`active ${partition}`)
    try {
      await (this.#hooks.active?.(claim, signal) ?? aborted(signal))
    } finally {
      if (this.claims.get(partition) === claim) this.claims.delete(partition)
      this.events.push(`end active ${partition}`)
    }
  }

  async standby(partition: number, signal: AbortSignal, copying: Copying): Promise<void> {
    if (this.claims.has(partition) || this.standbys.has(partition)) this.overlapped = true
    this.standbys.add(partition)
    this.events.push(`standby ${partition}`)
    try {
      await (this.#hooks.standby?.(partition, signal, copying) ?? aborted(signal))
    } finally {
      this.standbys.delete(partition)
      this.events.push(`end standby ${partition}`)
    }
  }
}

/** Reads a partition from `from` until `enough` says so or the position reaches it. */
export async function read(
  log: Log,
  topic: Topic,
  index: number,
  from: Offset,
  enough: Offset | ((records: readonly LogRecord[]) => boolean),
  limits = { maxRecords: 500, maxBytes: 1 << 20 },
): Promise<LogRecord[]> {
  const records: LogRecord[] = []
  const stop = new AbortController()
  const done = (next: Offset) => (typeof enough === 'number' ? next >= enough : enough(records))
  if (done(from)) return records
  for await (const batch of log.follow({ topic, index }, from, limits, stop.signal)) {
    for (const record of batch.records) records.push(record)
    if (done(batch.next)) break
  }
  stop.abort()
  return records
}
