import type { Logger } from 'pino'
import { ConfigurationError, FencedError, RetryableError } from '../../contract/errors.ts'
import type { Owner, OwnerMap } from '../../contract/query.ts'
import type { Offset } from '../../contract/record.ts'
import { within } from '../../runtime/pause.ts'
import type { Claim, Member } from '../log.ts'
import { assign } from '../placement/assigner.ts'
import { deferToHeirs } from '../placement/heirs.ts'
import type { ClaimPosition, EmbeddedWriter } from './writer.ts'

export class EmbeddedClaim implements Claim {
  readonly partition: number
  readonly epoch: number
  readonly start: { readonly input: Offset; readonly changelogEnd: Offset }
  readonly inputEnd: Offset
  readonly #writer: EmbeddedWriter
  readonly #inGroup: () => boolean
  #committing = false
  /** True when the claim is fenced, or nobody knows the outcome of a commit. */
  over = false
  onOver: () => void = () => {}

  constructor(
    writer: EmbeddedWriter,
    partition: number,
    { epoch, input, changelogEnd }: ClaimPosition,
    inGroup: () => boolean,
  ) {
    this.#writer = writer
    this.#inGroup = inGroup
    this.partition = partition
    this.epoch = epoch
    this.start = { input, changelogEnd }
    this.inputEnd = writer.inputEnd(partition)
  }

  get held(): boolean {
    return !this.over && this.#inGroup()
  }

  async commit(work: Parameters<Claim['commit']>[0]): Promise<{ changelogEnd: Offset }> {
    if (this.over) throw new FencedError(this.partition, this.epoch)
    if (this.#committing) throw new Error(`partition ${this.partition}: a commit was asked for while one is under way`)
    this.#committing = true
    try {
      const { changelogEnd } = await this.#writer.commit(this.partition, this.epoch, work)
      return { changelogEnd }
    } catch (error) {
      this.#end(error as FencedError | RetryableError)
      throw error
    } finally {
      this.#committing = false
    }
  }

  #end(error: Error): void {
    // A record that is too large was refused before anything was written, so the claim goes on.
    if ('code' in error && error.code === 'RECORD_TOO_LARGE') return
    this.over = true
    this.onOver()
  }
}

export interface GroupOptions {
  readonly partitions: number
  /** Standbys of each partition. */
  readonly standbys: number
  /** Milliseconds that a role may take to end before another member claims its partition and fences it. */
  readonly revokeTimeoutMs: number
  readonly logger: Logger
}

/**
 * A member's place. `in`: it takes part. `evicted`: the group takes it for dead, and it has not noticed. `dead`: it
 * never will. `leaving`: its roles are ending.
 */
interface Seat {
  readonly member: Member
  readonly roles: Set<Role>
  readonly broken: PromiseWithResolvers<never>
  state: 'in' | 'evicted' | 'dead' | 'leaving'
}

interface Role {
  readonly kind: 'active' | 'standby'
  readonly partition: number
  readonly seat: Seat
  readonly claim: EmbeddedClaim | undefined
  readonly stopping: AbortController
  done: Promise<void>
  /** True when a standby holds all that the changelog held when the standby began. It then follows. */
  whole: boolean
  /** The role did not end within revokeTimeoutMs. */
  overdue: boolean
  timer: NodeJS.Timeout | undefined
}

/** Holds the roles that a partition has, and those that it should have. */
interface Slot {
  readonly partition: number
  readonly roles: Set<Role>
  active: Seat | undefined
  standbys: readonly Seat[]
  /** The one of `standbys` that will own the partition when its copy is whole. */
  heir: Seat | undefined
  settling: boolean
  unsettled: boolean
}

/** Coordinates the members in this process. */
export class EmbeddedGroup {
  readonly #writer: EmbeddedWriter
  readonly #options: GroupOptions
  readonly #seats = new Map<string, Seat>()
  readonly #joins = new Set<Promise<void>>()
  readonly #slots: readonly Slot[]
  #scheduled = false
  #closed = false

  constructor(writer: EmbeddedWriter, options: GroupOptions) {
    this.#writer = writer
    this.#options = options
    this.#slots = Array.from({ length: options.partitions }, (_, partition) => {
      const nobody = { active: undefined, standbys: [], heir: undefined }
      return { partition, roles: new Set(), ...nobody, settling: false, unsettled: false }
    })
  }

  join(member: Member, signal: AbortSignal): Promise<void> {
    const joined = this.#join(member, signal).finally(() => this.#joins.delete(joined))
    this.#joins.add(joined)
    return joined
  }

  owners(): OwnerMap {
    return new Map(
      this.#slots.map(({ partition, roles }) => {
        const held = [...roles].filter((role) => heard(role) && !role.stopping.signal.aborted)
        const active = held.find((role) => role.kind === 'active')
        const standbys = held.filter((role) => role.kind === 'standby').map(owner)
        return [partition, { active: active && owner(active), standbys }]
      }),
    )
  }

  /**
   * Does what a coordinator does when a session times out: it removes the member and gives its partitions to others,
   * but tells its roles nothing. When one of them finds itself fenced, the others are stopped and the member joins
   * again by itself, unless it is `dead`.
   */
  evict(instance: string, dead: boolean): void {
    const seat = this.#seats.get(instance)
    if (seat?.state !== 'in') return
    this.#options.logger.warn({ instance }, 'member was evicted')
    seat.state = dead ? 'dead' : 'evicted'
    this.#schedule()
    // A member that owns nothing cannot be fenced.
    if (!dead && !owns(seat)) this.#return(seat)
  }

  /** Ends all roles, and waits for them no longer than a revocation would; join() rejects. */
  async close(): Promise<void> {
    this.#closed = true
    for (const seat of this.#seats.values()) seat.broken.reject(closed())
    await within(Promise.allSettled(this.#joins), this.#options.revokeTimeoutMs, () => {})
  }

  async #join(member: Member, signal: AbortSignal): Promise<void> {
    if (this.#closed) throw closed()
    if (signal.aborted) return
    const { instance } = member
    if (this.#seats.has(instance)) {
      const why = `a member called ${instance} is in the group already`
      throw new ConfigurationError('INVALID_CONFIGURATION', `${why}: give each its own INSTANCE_ID`)
    }
    const seat: Seat = { member, roles: new Set(), broken: Promise.withResolvers(), state: 'in' }
    this.#seats.set(instance, seat)
    this.#options.logger.info({ instance }, 'member joined')
    this.#schedule()
    const left = Promise.withResolvers<void>()
    const leave = () => left.resolve()
    signal.addEventListener('abort', leave, { once: true })
    try {
      await Promise.race([left.promise, seat.broken.promise])
    } finally {
      signal.removeEventListener('abort', leave)
      seat.state = 'leaving'
      this.#schedule()
      for (const role of seat.roles) this.#stop(role)
      await Promise.all([...seat.roles].map((role) => role.done))
      this.#seats.delete(instance)
      this.#options.logger.info({ instance }, 'member left')
    }
  }

  /** Members that come or go at once make one assignment. */
  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#assign()
    })
  }

  #assign(): void {
    const slots = this.#slots
    const seats = this.#closed ? [] : [...this.#seats.values()].filter((seat) => seat.state === 'in')
    const held = (mine: (slot: Slot) => boolean) => slots.filter(mine).map((slot) => slot.partition)
    const members = seats.map((seat) => ({
      name: seat.member.instance,
      active: held((slot) => slot.active === seat),
      standby: held((slot) => slot.standbys.includes(seat)),
      positions: seat.member.positions(),
      whole: [...seat.roles].filter(({ whole }) => whole).map(({ partition }) => partition),
    }))
    const { partitions, standbys } = this.#options
    const { assigned, heirs } = deferToHeirs(assign({ members, partitions, standbys }), members, undefined)
    for (const slot of slots) {
      const here = (list: 'active' | 'standby') => {
        return seats.filter((seat) => assigned.get(seat.member.instance)?.[list].includes(slot.partition))
      }
      slot.active = here('active')[0]
      slot.standbys = here('standby')
      slot.heir = seats.find((seat) => heirs.get(seat.member.instance)?.includes(slot.partition))
      this.#settle(slot)
    }
  }

  #settle(slot: Slot): void {
    slot.unsettled = true
    if (slot.settling) return
    slot.settling = true
    void this.#settleAll(slot)
  }

  async #settleAll(slot: Slot): Promise<void> {
    while (slot.unsettled) {
      slot.unsettled = false
      await this.#step(slot)
    }
    slot.settling = false
  }

  /** Brings a slot nearer to its assignment. A role that ends, or becomes overdue, calls for the next step. */
  async #step(slot: Slot): Promise<void> {
    for (const role of slot.roles) if (heard(role) && !wanted(slot, role)) this.#stop(role)
    const seat = slot.active
    if (seat !== undefined && seat.state === 'in' && ![...slot.roles].some((role) => blocks(role, seat))) {
      await this.#claim(slot, seat)
    }
    for (const standby of slot.standbys) {
      if (standby.state === 'in' && ![...slot.roles].some((role) => role.seat === standby)) {
        this.#start('standby', slot, standby, undefined)
      }
    }
  }

  async #claim(slot: Slot, seat: Seat): Promise<void> {
    const { partition } = slot
    try {
      const position = await this.#writer.claim(partition)
      const claim = new EmbeddedClaim(this.#writer, partition, position, () => seat.state === 'in')
      if (slot.active !== seat || seat.state !== 'in') return
      this.#start('active', slot, seat, claim)
    } catch (error) {
      if (!(error instanceof RetryableError)) {
        seat.broken.reject(error)
        return
      }
      if (this.#closed) return
      await this.#writer.healthy()
      slot.unsettled = true
    }
  }

  #start(kind: 'active' | 'standby', slot: Slot, seat: Seat, claim: EmbeddedClaim | undefined): void {
    const { partition } = slot
    const { member } = seat
    const stopping = new AbortController()
    const done = Promise.resolve()
    const more = { whole: false, overdue: false, timer: undefined }
    const role: Role = { kind, partition, seat, claim, stopping, done, ...more }
    slot.roles.add(role)
    seat.roles.add(role)
    this.#options.logger.info({ instance: member.instance, partition, epoch: claim?.epoch }, `${kind} role begins`)
    const { signal } = stopping
    const run = async () => {
      if (claim === undefined) {
        return member.standby(partition, signal, {
          heir: slot.heir === seat,
          get held() {
            return seat.state === 'in'
          },
          whole: (is) => this.#whole(role, is),
        })
      }
      claim.onOver = () => this.#lost(role)
      return member.active(claim, signal)
    }
    role.done = run().then(
      () => this.#ended(role, undefined),
      (error: unknown) => this.#ended(role, error ?? new Error(`${kind} role rejected with nothing`)),
    )
  }

  #whole(role: Role, is: boolean): void {
    role.whole = is
    if (!is) return
    const heirs = this.#slots.filter(({ heir }) => heir === role.seat)
    const ripe = heirs.every(({ roles }) => [...roles].some(({ seat, whole }) => seat === role.seat && whole))
    if (heirs.length > 0 && ripe) this.#schedule()
  }

  #stop(role: Role): void {
    if (role.stopping.signal.aborted) return
    role.stopping.abort()
    const { partition, kind, seat } = role
    role.timer = setTimeout(() => {
      role.overdue = true
      const fields = { instance: seat.member.instance, partition, kind, waitedMs: this.#options.revokeTimeoutMs }
      this.#options.logger.warn(fields, 'role does not end; its partition is taken from it')
      this.#settle(this.#slots[partition] as Slot)
    }, this.#options.revokeTimeoutMs)
  }

  /** The claim is fenced, or nobody knows the outcome of its last commit. */
  #lost(role: Role): void {
    if (role.seat.state === 'evicted') this.#return(role.seat)
    else if (role.seat.state !== 'dead') this.#stop(role)
  }

  #return(seat: Seat): void {
    this.#options.logger.info({ instance: seat.member.instance }, 'evicted member joins again')
    seat.state = 'in'
    for (const role of seat.roles) this.#stop(role)
    this.#schedule()
  }

  #ended(role: Role, error: unknown): void {
    const { kind, partition, seat, claim, stopping } = role
    const slot = this.#slots[partition] as Slot
    clearTimeout(role.timer)
    slot.roles.delete(role)
    seat.roles.delete(role)
    this.#options.logger.info({ instance: seat.member.instance, partition, epoch: claim?.epoch }, `${kind} role ended`)
    if (error === undefined) {
      const early = new Error(`the ${kind} role of partition ${partition} ended before it was told to`)
      if (!stopping.signal.aborted) seat.broken.reject(early)
    } else if (error instanceof FencedError) {
      if (seat.state === 'evicted') this.#return(seat)
    } else if (error !== stopping.signal.reason && !(claim?.over && error instanceof RetryableError)) {
      seat.broken.reject(error)
    }
    // The group was already revoking its partitions when it was evicted, so nothing fences it.
    if (seat.state === 'evicted' && !owns(seat)) this.#return(seat)
    this.#settle(slot)
  }
}

function owner({ seat: { member } }: Role): Owner {
  return { instance: member.instance, endpoint: member.endpoint }
}

function owns({ roles }: Seat): boolean {
  return [...roles].some(({ kind }) => kind === 'active')
}

/** True when the role hears of the group's decisions. */
function heard({ seat }: Role): boolean {
  return seat.state !== 'evicted' && seat.state !== 'dead'
}

function wanted(slot: Slot, { kind, seat, claim }: Role): boolean {
  if (seat.state !== 'in') return false
  return kind === 'active' ? seat === slot.active && claim?.over !== true : slot.standbys.includes(seat)
}

/**
 * True when `seat` cannot claim the partition before this role has ended. Nobody waits for a zombie: it will be fenced.
 */
function blocks(role: Role, seat: Seat): boolean {
  if (role.seat === seat) return true
  return role.kind === 'active' && heard(role) && !role.overdue
}

function closed(): RetryableError {
  return new RetryableError('LOG_CLOSED', 'the log was closed')
}
