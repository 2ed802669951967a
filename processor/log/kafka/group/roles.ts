import type { Logger } from 'pino'
import { FencedError, LogCorruptedError, OffsetOutOfRangeError, RetryableError } from '../../../contract/errors.ts'
import { Backoff, pause, Reminder } from '../../../runtime/pause.ts'
import type { Member, Offset } from '../../log.ts'
import type { KafkaClaim } from '../claim/claim.ts'

/**
 * How long a claim waits for the former owner, which the same assignment has told to stop, ms. Fencing it in the
 * middle of a batch costs the next owner 100 to 200 ms: the transaction is aborted, looked for, and its work done
 * again.
 */
const HAND_OVER_MS = 50
/**
 * How long a claim that failed rests, ms; doubling. A changelog that cannot be read stays damaged until another broker
 * leads it: it rests the longest. An assignment ends the rest.
 */
const MIN_REST_MS = 100
const MAX_REST_MS = 5000
/** How long a new standby waits for claims of other partitions, ms. */
const STANDBY_WAIT_MS = 1000

export type Kind = 'active' | 'standby'

interface Role {
  readonly kind: Kind
  readonly claim: KafkaClaim | undefined
  readonly stopping: AbortController
  done: Promise<void>
  /** The standby has caught up with the changelog and follows it. */
  whole: boolean
}

/** One partition: its role here, and the role that it should have. */
interface Slot {
  readonly partition: number
  wanted: Kind | undefined
  role: Role | undefined
  /** Aborts the claim that is being taken or waited for. */
  claiming: AbortController | undefined
  resting: AbortController | undefined
  waiting: AbortController | undefined
  /** Another member is about to end its work on the partition. */
  moving: boolean
  /** This standby is to become the owner once it has caught up. */
  heir: boolean
  /** The last claim was lost: the next one waits for the group to confirm this member. */
  unconfirmed: boolean
  /** Start of the last claim whose reader found the offset out of range. */
  unreadableFrom: Offset | undefined
  restMs: number
  settled: Promise<void>
}

export interface RolesOptions {
  readonly logger: Logger
  take(partition: number, signal: AbortSignal): Promise<KafkaClaim>
  /** The group has lately confirmed that this member is in it. */
  inGroup: () => boolean
  /** Resolves when the group has confirmed again that this member is in it. */
  confirmed(signal: AbortSignal): Promise<void>
  /** A claim was lost: the group may have news. */
  onLost(): void
  /** Every heir here has caught up: the group may make it the owner. */
  onHeirsReady(): void
}

/** The roles of one member. A partition has one at a time: the next begins when the last has ended. */
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
        unconfirmed: false,
        unreadableFrom: undefined,
        restMs: 0,
      }
      return { partition, ...nothing, settled: Promise.resolve() }
    })
    this.#broken.promise.catch(() => {})
  }

  get broken(): Promise<never> {
    return this.#broken.promise
  }

  held(kind: Kind): number[] {
    return this.#slots.filter((slot) => slot.wanted === kind).map(({ partition }) => partition)
  }

  get unclaimed(): number[] {
    const unclaimed = this.#slots.filter(({ wanted, role }) => wanted === 'active' && role?.kind !== 'active')
    return unclaimed.map(({ partition }) => partition)
  }

  /** Standbys that have caught up with the changelog. */
  get whole(): number[] {
    return this.#slots.filter(({ role }) => role?.whole === true).map(({ partition }) => partition)
  }

  /** There are heirs here, and all of them have caught up. */
  get heirsReady(): boolean {
    const heirs = this.#slots.filter(({ heir }) => heir)
    return heirs.length > 0 && heirs.every(({ role }) => role?.whole === true)
  }

  /**
   * Starts and stops roles until they match the lists. Roles that stay are not touched. Claims of `moving` give the
   * former owner time to end; `heir` are standbys to be owned later.
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
      slot.unconfirmed = false
      slot.moving = moving.includes(partition)
      this.#settle(slot)
    }
  }

  /** Resolves when every role has ended. */
  async stop(): Promise<void> {
    this.want([], [])
    await Promise.all(this.#slots.map(({ settled }) => settled))
  }

  #settle(slot: Slot): void {
    if (slot.wanted !== 'active') slot.claiming?.abort()
    slot.waiting?.abort()
    const { role } = slot
    // A standby answers readers until the claim has been taken.
    const promoted = role?.kind === 'standby' && slot.wanted === 'active'
    if (role !== undefined && ((role.kind !== slot.wanted && !promoted) || role.claim?.over === true)) {
      role.stopping.abort()
    }
    slot.settled = slot.settled.then(() => this.#step(slot))
  }

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

  /** Claims come first: until they are taken nobody works on those partitions. */
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
    const backoff = new Backoff(MIN_REST_MS, MAX_REST_MS)
    const told = new Reminder()
    while (!signal.aborted) {
      try {
        if (slot.unconfirmed) {
          // The group may not answer for long, and the copy here is still worth reading.
          if (slot.role === undefined) this.#start(slot, 'standby', undefined)
          if (restMs > 0 && (await rest(slot, restMs, signal))) backoff.reset()
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
        restMs = damaged ? MAX_REST_MS : backoff.next()
        if (told.isDue(error.message)) {
          this.#options.logger.warn({ err: error, partition: slot.partition }, 'the partition cannot be claimed yet')
        }
        slot.unconfirmed = true
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
    if (is && this.heirsReady) this.#options.onHeirsReady()
  }

  #lost(slot: Slot): void {
    slot.unconfirmed = true
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
      // Retention may have overtaken the owner, and the next claim finds out. If that one starts at the same offset,
      // it rests.
      const { input } = claim.start
      this.#options.logger.warn(
        { err: error, partition, offset: input },
        'telemetry cannot be read from where it was left',
      )
      if (slot.unreadableFrom === input) slot.restMs = MAX_REST_MS
      slot.unreadableFrom = input
      slot.unconfirmed = true
      this.#settle(slot)
    } else if (!endsRoleOnly(error, claim) && error !== stopping.signal.reason) {
      this.#broken.reject(error)
    }
  }
}

/** A lost claim ends the role, not the member. */
function endsRoleOnly(error: unknown, claim: KafkaClaim | undefined): boolean {
  return error instanceof FencedError || (claim?.over === true && error instanceof RetryableError)
}

/** True when an assignment ended the rest. */
async function rest(slot: Slot, ms: number, signal: AbortSignal): Promise<boolean> {
  const resting = new AbortController()
  slot.resting = resting
  await pause(ms, AbortSignal.any([signal, resting.signal]))
  return resting.signal.aborted
}
