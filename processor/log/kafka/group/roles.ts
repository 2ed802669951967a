import type { Logger } from 'pino'
import { FencedError, LogCorruptedError, OffsetOutOfRangeError, RetryableError } from '../../../contract/errors.ts'
import { pause, Reminder } from '../../../runtime/pause.ts'
import type { Member, Offset } from '../../log.ts'
import type { KafkaClaim } from '../claim/claim.ts'

/**
 * How long a claim waits for who works on the partition and has been told by the same assignment to end, ms: a batch that
 * is fenced costs the next owner 100 to 200 ms, for its transaction is aborted, and looked for, and its work is done again.
 */
const HAND_OVER_MS = 50
/**
 * How long a claim that cannot be taken is left alone, ms: at first, and at most, where it doubles each time. A changelog
 * that cannot be read is damaged until another broker leads it. What the group has to say ends the wait.
 */
const MIN_REST_MS = 100
const MAX_REST_MS = 5000
/** How long a new standby waits for claims that cannot be taken, ms. */
const STANDBY_WAIT_MS = 1000

export type Kind = 'active' | 'standby'

interface Role {
  readonly kind: Kind
  readonly claim: KafkaClaim | undefined
  readonly stopping: AbortController
  done: Promise<void>
  /** Of a standby: the copy holds all that the changelog held when it began, and follows. */
  whole: boolean
}

/** What this member has of a partition, and what it should have. */
interface Slot {
  readonly partition: number
  wanted: Kind | undefined
  role: Role | undefined
  /** Aborts a claim that is being taken, or waited for, when it is no longer wanted. */
  claiming: AbortController | undefined
  /** Aborts the wait between two tries of a claim. */
  resting: AbortController | undefined
  /** Aborts the wait of a standby for the claims, when something else is wanted. */
  waiting: AbortController | undefined
  /** Another member of the group is about to end its work on it. */
  moving: boolean
  /** Of a standby: the partition is to be owned here when the copy is whole. */
  heir: boolean
  /** The last claim was lost: somebody else may hold the partition by right. */
  doubtful: boolean
  /** Where the last claim started whose reader went out of the log. */
  strayed: Offset | undefined
  /** How long the next claim waits before it asks, ms. */
  restMs: number
  settled: Promise<void>
}

export interface RolesOptions {
  readonly logger: Logger
  take(partition: number, signal: AbortSignal): Promise<KafkaClaim>
  /** The group has said of late that this member is in it. */
  inGroup: () => boolean
  /** Resolves when the group has said again that this member is in it and its partitions are its own. */
  confirmed(signal: AbortSignal): Promise<void>
  /** A claim was lost: the group may have news. */
  onLost(): void
  /** All that is to be owned here is whole now: the group may give it. */
  onRipe(): void
}

/** The roles of one member. Per partition one at a time: the next begins when the last has ended. */
export class KafkaRoles {
  readonly #member: Member
  readonly #options: RolesOptions
  readonly #slots: Slot[]
  readonly #broken = Promise.withResolvers<never>()

  constructor(member: Member, partitions: number, options: RolesOptions) {
    this.#member = member
    this.#options = options
    this.#slots = Array.from({ length: partitions }, (_, partition) => {
      const nothing = {
        wanted: undefined,
        role: undefined,
        claiming: undefined,
        resting: undefined,
        waiting: undefined,
        moving: false,
        heir: false,
        doubtful: false,
        strayed: undefined,
        restMs: 0,
      }
      return { partition, ...nothing, settled: Promise.resolve() }
    })
    // Nobody may be listening any more when a last role fails.
    this.#broken.promise.catch(() => {})
  }

  /** Rejects when a role has rejected in a way that ends the member. */
  get broken(): Promise<never> {
    return this.#broken.promise
  }

  held(kind: Kind): number[] {
    return this.#slots.filter((slot) => slot.wanted === kind).map(({ partition }) => partition)
  }

  /** To be owned here, and not taken yet. */
  get unclaimed(): number[] {
    const unclaimed = this.#slots.filter(({ wanted, role }) => wanted === 'active' && role?.kind !== 'active')
    return unclaimed.map(({ partition }) => partition)
  }

  /** Standbys that hold all that the changelog held when they began, and follow it. */
  get whole(): number[] {
    return this.#slots.filter(({ role }) => role?.whole === true).map(({ partition }) => partition)
  }

  /** There are standbys that are to be owned here, and all of them are whole. */
  get ripe(): boolean {
    const heirs = this.#slots.filter(({ heir }) => heir)
    return heirs.length > 0 && heirs.every(({ role }) => role?.whole === true)
  }

  /**
   * Stops what is not in the lists, and begins what is new in them; of `moving` it gives the former owner time to end,
   * of `heir` it tells when it is whole. Roles that stay are not touched.
   */
  want(
    active: readonly number[],
    standby: readonly number[],
    { moving = [], heir = [] }: { readonly moving?: readonly number[]; readonly heir?: readonly number[] } = {},
  ): void {
    for (const slot of this.#slots) {
      const { partition } = slot
      slot.resting?.abort()
      slot.heir = heir.includes(partition)
      const wanted = active.includes(partition) ? 'active' : standby.includes(partition) ? 'standby' : undefined
      if (wanted === slot.wanted) continue
      slot.wanted = wanted
      slot.doubtful = false
      slot.moving = moving.includes(partition)
      this.#settle(slot)
    }
  }

  /** Stops everything; resolves when every role has ended. */
  async stop(): Promise<void> {
    this.want([], [])
    await Promise.all(this.#slots.map(({ settled }) => settled))
  }

  #settle(slot: Slot): void {
    if (slot.wanted !== 'active') slot.claiming?.abort()
    slot.waiting?.abort()
    const { role } = slot
    // A standby answers readers until the claim has been taken: only then it ends.
    const promoted = role?.kind === 'standby' && slot.wanted === 'active'
    if (role !== undefined && ((role.kind !== slot.wanted && !promoted) || role.claim?.over === true)) {
      role.stopping.abort()
    }
    slot.settled = slot.settled.then(() => this.#step(slot))
  }

  /** Never rejects. */
  async #step(slot: Slot): Promise<void> {
    const { role } = slot
    if (role !== undefined) {
      if (role.stopping.signal.aborted) await role.done
      else if (role.kind === slot.wanted) return
    }
    if (slot.wanted === 'standby') {
      if (role === undefined) await this.#afterClaims(slot)
      if (slot.wanted === 'standby') this.#start(slot, 'standby', undefined)
    } else if (slot.wanted === 'active') await this.#claim(slot)
  }

  /** A copy that is begun can wait for the claims that are: until they are taken, nobody works on those partitions. */
  async #afterClaims(slot: Slot): Promise<void> {
    const claims = this.unclaimed.map((partition) => this.#slots[partition] as Slot)
    if (claims.length === 0) return
    const waiting = new AbortController()
    slot.waiting = waiting
    const taken = Promise.all(claims.map(({ settled }) => settled))
    await Promise.race([taken, pause(STANDBY_WAIT_MS, waiting.signal)])
    waiting.abort()
  }

  async #claim(slot: Slot): Promise<void> {
    const claiming = new AbortController()
    slot.claiming = claiming
    const { signal } = claiming
    if (slot.moving) await pause(HAND_OVER_MS, signal)
    let { restMs } = slot
    slot.restMs = 0
    const told = new Reminder()
    while (!signal.aborted) {
      try {
        if (slot.doubtful) {
          // It may be long until the group answers; what is here is still worth reading.
          if (slot.role === undefined) this.#start(slot, 'standby', undefined)
          if (restMs > 0 && (await rest(slot, restMs, signal))) restMs = 0
          if (signal.aborted) break
          await this.#options.confirmed(signal)
        }
        if (signal.aborted) break
        const claim = await this.#options.take(slot.partition, signal)
        if (signal.aborted) return
        const standby = slot.role
        standby?.stopping.abort()
        await standby?.done
        if (signal.aborted) return
        slot.claiming = undefined
        this.#start(slot, 'active', claim)
        return
      } catch (error) {
        const damaged = error instanceof LogCorruptedError
        if (error instanceof RetryableError) {
          if (error.code === 'LOG_CLOSED') return
        } else if (!damaged) {
          this.#broken.reject(error)
          return
        }
        restMs = damaged ? MAX_REST_MS : Math.min(Math.max(restMs * 2, MIN_REST_MS), MAX_REST_MS)
        if (told.isDue(error.message)) {
          this.#options.logger.warn({ err: error, partition: slot.partition }, 'the partition cannot be claimed yet')
        }
        slot.doubtful = true
      }
    }
  }

  #start(slot: Slot, kind: Kind, claim: KafkaClaim | undefined): void {
    const { partition } = slot
    const { logger, inGroup } = this.#options
    const stopping = new AbortController()
    const role: Role = { kind, claim, stopping, done: Promise.resolve(), whole: false }
    slot.role = role
    const { instance } = this.#member
    logger.info({ instance, partition, epoch: claim?.epoch }, `${kind} role begins`)
    const run = async (): Promise<void> => {
      if (claim === undefined) {
        return this.#member.standby(partition, stopping.signal, {
          heir: slot.heir,
          get held() {
            return inGroup()
          },
          whole: (is) => this.#whole(role, is),
        })
      }
      claim.onOver = () => this.#lost(slot)
      return this.#member.active(claim, stopping.signal)
    }
    role.done = run().then(
      () => this.#ended(slot, role, undefined),
      (error: unknown) => this.#ended(slot, role, error ?? new Error(`${kind} role rejected with nothing`)),
    )
  }

  #whole(role: Role, is: boolean): void {
    role.whole = is
    if (is && this.ripe) this.#options.onRipe()
  }

  #lost(slot: Slot): void {
    slot.doubtful = true
    this.#settle(slot)
    this.#options.onLost()
  }

  #ended(slot: Slot, role: Role, error: unknown): void {
    const { kind, claim, stopping } = role
    const { partition } = slot
    slot.role = undefined
    this.#options.logger.info({ instance: this.#member.instance, partition, epoch: claim?.epoch }, `${kind} role ended`)
    if (error === undefined) {
      const early = new Error(`the ${kind} role of partition ${partition} ended before it was told to`)
      if (!stopping.signal.aborted) this.#broken.reject(early)
    } else if (claim !== undefined && error instanceof OffsetOutOfRangeError) {
      // Retention may have overtaken it: the next claim finds out. One that starts there all the same ends so again.
      const { input } = claim.start
      this.#options.logger.warn(
        { err: error, partition, offset: input },
        'telemetry cannot be read from where it was left',
      )
      if (slot.strayed === input) slot.restMs = MAX_REST_MS
      slot.strayed = input
      slot.doubtful = true
      this.#settle(slot)
    } else if (!endsRoleOnly(error, claim) && error !== stopping.signal.reason) {
      this.#broken.reject(error)
    }
  }
}

/** The claim was lost, or is over: that ends the role, and not the member. */
function endsRoleOnly(error: unknown, claim: KafkaClaim | undefined): boolean {
  return error instanceof FencedError || (claim?.over === true && error instanceof RetryableError)
}

/** True when there was news before `ms` were over. */
async function rest(slot: Slot, ms: number, signal: AbortSignal): Promise<boolean> {
  const resting = new AbortController()
  slot.resting = resting
  await pause(ms, AbortSignal.any([signal, resting.signal]))
  return resting.signal.aborted
}
