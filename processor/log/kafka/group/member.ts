import type { Logger } from 'pino'
import { ConfigurationError, RetryableError } from '../../../contract/errors.ts'
import { aborted, pause, Reminder } from '../../../runtime/pause.ts'
import type { Member } from '../../log.ts'
import { KafkaClaim } from '../claim/claim.ts'
import { type ClaimContext, connectLanes } from '../claim/claim-context.ts'
import { CONTROL_LANE, GROUP_COORDINATOR } from '../cluster.ts'
import type { KafkaMetrics } from '../health.ts'
import type { BrokerRequests } from '../protocol/broker.ts'
import { asTidemark, isNameless, isTransient, typeOf } from '../protocol/errors.ts'
import { KafkaLeader } from './leader.ts'
import {
  clientIdOf,
  decodeAssignment,
  encodeSubscription,
  type Peer,
  type Subscription,
  strangerTo,
  yields,
} from './membership.ts'
import { answersAs, KafkaPeers } from './peers.ts'
import { KafkaRoles } from './roles.ts'

/** Members learn of a rebalance by the answer to a heartbeat, ms. */
export const HEARTBEAT_MS = 100
const PROTOCOL = 'tidemark'
const LEAVE_TIMEOUT_MS = 2000
/**
 * The group may have dropped a member whose last confirmed request was sent this long ago, ms. Five heartbeats, and
 * less than the time in which peers miss a frozen process.
 */
export const LEASE_MS = 500
/**
 * Rest after UNKNOWN_SERVER_ERROR, ms: each join makes all members join again, and Kafka answers so every time when
 * the group's record is too large.
 */
const NAMELESS_REST_MS = 1000
/** A join that takes longer is late, ms: live members join within a heartbeat, and peers evict a dead one sooner. */
export const LATE_MS = 2000

export interface MemberOptions {
  readonly standbys: number
  readonly zone: string | undefined
  /** Session timeout, ms: after this long without a heartbeat the group drops a member. */
  readonly sessionTimeoutMs: number
  readonly balanceMs: number
  readonly logger: Logger
}

export interface MemberEvents {
  readonly suspect: (memberId: string) => void
  /** Called again and again while a join is late. */
  readonly onLate: () => void
}

/** One member of the group: joins, heartbeats, and starts and stops its roles as the leader assigns. */
export class KafkaMember {
  readonly #claims: ClaimContext
  readonly #member: Member
  readonly #options: MemberOptions
  readonly #metrics: KafkaMetrics
  readonly #onLate: () => void
  readonly #roles: KafkaRoles
  readonly #peers: KafkaPeers
  readonly #leader: KafkaLeader
  readonly #fitness: Fitness
  /** Each member has a connection of its own: JoinGroup waits for every member, others of this process among them. */
  readonly #lane: string
  readonly #confirmations = new Confirmations()
  /** Empty while the group does not know this member. */
  memberId = ''
  suspended = false
  /** Asks the group for news now. */
  nudge: () => void = () => {}
  #generation = -1
  #since: number | null = null
  readonly #refused = Promise.withResolvers<never>()
  #answering = true
  readonly #told = new Reminder()
  /** When the last confirmed request was sent, by performance.now(). */
  #grantedAt = Number.NEGATIVE_INFINITY

  constructor(
    claims: ClaimContext,
    member: Member,
    options: MemberOptions,
    metrics: KafkaMetrics,
    { suspect, onLate }: MemberEvents,
  ) {
    const { logger, standbys, balanceMs } = options
    this.#claims = claims
    this.#member = member
    this.#options = options
    this.#metrics = metrics
    this.#onLate = onLate
    this.#peers = new KafkaPeers(logger, suspect, () => this.nudge())
    this.#leader = new KafkaLeader(claims, standbys, balanceMs, metrics)
    this.#fitness = new Fitness(member, metrics, logger)
    this.#refused.promise.catch(() => {})
    this.#lane = `group ${member.instance}`
    claims.cluster.introduce(this.#lane, clientIdOf(member))
    const inGroup = () => performance.now() - this.#grantedAt < LEASE_MS
    this.#roles = new KafkaRoles(member, claims.identity.partitions, {
      logger,
      take: (partition, signal) => KafkaClaim.take(claims, partition, inGroup, signal),
      inGroup,
      confirmed: (signal) => this.#confirmations.next(signal),
      onLost: () => {
        this.suspended = false
        this.nudge()
      },
      onHeirsReady: () => this.nudge(),
    })
  }

  /** See KafkaLog.unclaimed. */
  get unclaimed(): number[] | undefined {
    return Number.isFinite(this.#grantedAt) ? this.#roles.unclaimed : undefined
  }

  /** Opens the connection to the group's coordinator, which `run` will need. */
  connect(): void {
    this.#prepare(this.#claims.cluster.coordinator(this.#lane, GROUP_COORDINATOR, this.#claims.group))
  }

  #prepare(connecting: Promise<unknown>): void {
    connecting.catch((error: unknown) => {
      this.#options.logger.debug({ err: error }, 'a connection could not be made; it is made when it is needed')
    })
  }

  /**
   * Takes part until `signal` aborts. When it resolves or rejects, all roles have ended and the member has left the
   * group.
   */
  async run(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return
    const stop = new AbortController()
    const over = AbortSignal.any([signal, stop.signal])
    const taking = this.#takePart(over)
    void this.#leader.run(over, () => this.nudge())
    try {
      const { recreated } = this.#claims.cluster.ids
      // `taking` alone is not enough: a join is answered only when all members have joined or were dropped.
      await Promise.race([aborted(over), taking, this.#roles.broken, this.#refused.promise, recreated])
    } finally {
      stop.abort()
      this.#peers.close()
      // Most of these roles have ended by the time another member hears of it; claims fence the rest.
      await Promise.all([this.#roles.stop(), this.#leave()])
      // A join under way ends when the group drops the member. One that was still joining learns its id only then.
      await taking.catch(() => {})
      await this.#leave()
    }
  }

  async #takePart(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#rejoin(signal)
        await this.#beat(signal)
      } catch (error) {
        if (signal.aborted) return
        await this.#recover(error, signal)
      }
    }
  }

  async #rejoin(signal: AbortSignal): Promise<void> {
    const { group, names } = this.#claims
    const { sessionTimeoutMs, logger } = this.#options
    const started = performance.now()
    const { requests } = await this.#claims.cluster.coordinator(this.#lane, GROUP_COORDINATOR, group)
    // It has already left, and would join again.
    if (signal.aborted) return
    const subscription = this.#subscription()
    const joining = requests.joinGroup({
      groupId: group,
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: sessionTimeoutMs,
      memberId: this.memberId,
      groupProtocols: [{ name: PROTOCOL, metadata: encodeSubscription(names, subscription) }],
    })
    // Claims will need these connections, and the other members take a moment to join.
    if (this.#generation < 0) this.#prepare(connectLanes(this.#claims))
    const late = setInterval(this.#onLate, LATE_MS)
    const joined = await joining.finally(() => clearInterval(late))
    this.memberId = joined.memberId
    this.#generation = joined.generationId
    this.#since ??= joined.generationId
    if (signal.aborted) return
    const leads = joined.leaderId === joined.memberId
    if (!leads) this.#leader.resign()
    const groupAssignment = leads ? await this.#leader.assign(joined) : []
    const { generationId, memberId } = joined
    const syncing = performance.now()
    const synced = await requests.syncGroup({ groupId: group, generationId, memberId, groupAssignment })
    if (signal.aborted) return
    const { active, standby, moving, heir, peers, stranger } = decodeAssignment(names, synced.memberAssignment)
    if (stranger !== undefined) throw strangerTo(group, names, stranger)
    const { instance } = this.#member
    logger.info({ instance, generation: generationId, active, standby, heir }, 'partitions assigned')
    this.#metrics.rebalances.observe((performance.now() - started) / 1000)
    this.#roles.want(active, standby, { moving, heir })
    this.#peers.watch(peers)
    void this.#checkName({ ...subscription, memberId }, peers)
    this.#confirm(syncing)
  }

  /**
   * Two live processes with one name would evict each other whenever one starts, so the later one ends. Never rejects.
   */
  async #checkName(self: Peer, others: readonly Peer[]): Promise<void> {
    const { instance, endpoint } = self
    for (const other of others) {
      if (other.instance !== instance || other.endpoint === endpoint || !yields(self, other)) continue
      if (await answersAs(other.endpoint, instance)) this.#refused.reject(taken(instance, other.endpoint))
    }
  }

  #subscription(): Subscription {
    const { instance, endpoint } = this.#member
    const positions = Object.fromEntries(this.#member.positions())
    const held = { active: this.#roles.held('active'), standby: this.#roles.held('standby') }
    return {
      instance,
      endpoint,
      zone: this.#options.zone,
      since: this.#since,
      ...held,
      positions,
      whole: this.#roles.whole,
      unfit: this.#fitness.report() || undefined,
    }
  }

  /**
   * Heartbeats, until the group asks for a new join by an error, or this member has a reason for one: a new assignment
   * as the leader, heirs that have caught up, a change of fitness.
   */
  async #beat(signal: AbortSignal): Promise<void> {
    const { group } = this.#claims
    for (;;) {
      await this.#untilNextBeat(signal)
      if (signal.aborted) return
      if (this.suspended) continue
      if (this.#leader.due || this.#roles.heirsReady || this.#fitness.rejoinDue) return
      const request = { groupId: group, groupGenerationId: this.#generation, memberId: this.memberId }
      this.#confirm(await this.#heartbeat(request, signal))
    }
  }

  async #untilNextBeat(signal: AbortSignal): Promise<void> {
    const nudged = new AbortController()
    this.nudge = () => nudged.abort()
    await pause(HEARTBEAT_MS, AbortSignal.any([signal, nudged.signal]))
  }

  /**
   * Resolves with the time when the heartbeat that was answered was sent. Roles go on while the coordinator is silent:
   * claims keep them right.
   */
  #heartbeat(request: Parameters<BrokerRequests['heartbeat']>[0], signal: AbortSignal): Promise<number> {
    const { group } = this.#claims
    return this.#claims.cluster.retry(this.#options.sessionTimeoutMs, signal, async () => {
      const { requests } = await this.#claims.cluster.coordinator(this.#lane, GROUP_COORDINATOR, group)
      const sent = performance.now()
      await requests.heartbeat(request)
      return sent
    })
  }

  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    const { logger } = this.#options
    const { instance } = this.#member
    const type = typeOf(error)
    if (type === 'REBALANCE_IN_PROGRESS' || type === 'ILLEGAL_GENERATION') return
    if (type === 'UNKNOWN_MEMBER_ID') {
      logger.warn({ instance, memberId: this.memberId }, 'the group has dropped this member; it joins anew')
      this.memberId = ''
      this.#roles.want([], [])
      return
    }
    const problem = asTidemark(error, `group ${this.#claims.group}`)
    const nameless = isNameless(error)
    if (!nameless && !isTransient(error)) throw problem instanceof RetryableError ? beyondUse(problem) : problem
    const isNews = nameless ? this.#told.isDue(problem.message) : this.#answering
    const what = nameless ? 'the group fails: see the log of its brokers' : 'the group does not answer'
    if (isNews) logger.warn({ err: error, instance }, what)
    this.#answering = false
    await this.#claims.cluster.forget()
    await pause(nameless ? NAMELESS_REST_MS : HEARTBEAT_MS, signal)
  }

  /** `asked`: when the request was sent that confirmed this member. */
  #confirm(asked: number): void {
    this.#answering = true
    this.#grantedAt = asked
    this.#confirmations.come()
  }

  /** Best effort: otherwise the group drops the member when its session ends. */
  async #leave(): Promise<void> {
    const { memberId } = this
    if (memberId === '') return
    this.memberId = ''
    try {
      await leaveGroup(this.#claims, memberId)
    } catch (error) {
      this.#options.logger.warn({ err: error, memberId }, 'the group could not be told of the end of this member')
    }
  }
}

/** Any client may have any member leave by its id. The member may have left already. */
export async function leaveGroup(
  { cluster, group }: ClaimContext,
  memberId: string,
  signal?: AbortSignal,
): Promise<void> {
  await cluster.retry(LEAVE_TIMEOUT_MS, signal, async () => {
    const { requests } = await cluster.coordinator(CONTROL_LANE, GROUP_COORDINATOR, group)
    try {
      await requests.leaveGroup({ groupId: group, memberId })
    } catch (error) {
      if (typeOf(error) !== 'UNKNOWN_MEMBER_ID') throw error
    }
  })
}

export function taken(instance: string, endpoint: string): ConfigurationError {
  return new ConfigurationError(
    'INVALID_CONFIGURATION',
    `INSTANCE_ID=${instance}: a live processor at ${endpoint} has this name in the group; ` +
      'stop it, or give this one a name and a DATA_DIR of its own',
  )
}

function beyondUse(cause: RetryableError): Error {
  const way = 'the group cannot be used; see the log of its brokers, or set another GROUP'
  return new ConfigurationError('LOG_MISMATCH', `${cause.message}: ${way}`, cause)
}

/** Callers that wait for the next heartbeat or assignment that confirms this member. */
export class Confirmations {
  readonly #waiting = new Set<() => void>()

  /**
   * Resolves at the next confirmation or when `signal` aborts, and leaves no listener: a claim may wait by one signal
   * for days.
   */
  next(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve()
      const end = (): void => {
        this.#waiting.delete(end)
        signal.removeEventListener('abort', end)
        resolve()
      }
      this.#waiting.add(end)
      signal.addEventListener('abort', end)
    })
  }

  come(): void {
    for (const end of this.#waiting) end()
  }
}

/**
 * A change is reported with a new join after this long, ms. Processors on one full volume find out within 5 s of each
 * other: if they reported one by one, each would be given the former one's partitions.
 */
const SAME_VOLUME_MS = 10_000

/** Whether this member's stores can be written, and whether the group knows. */
export class Fitness {
  readonly #member: Member
  readonly #metrics: KafkaMetrics
  readonly #logger: Logger
  #told = false
  /** When the member stopped being what the group takes it for, by performance.now(). */
  #changedAt: number | undefined

  constructor(member: Member, metrics: KafkaMetrics, logger: Logger) {
    this.#member = member
    this.#metrics = metrics
    this.#logger = logger
  }

  /** Whether the member is unfit, for the subscription of a join. */
  report(): boolean {
    const { instance, unfit = false } = this.#member
    if (unfit && !this.#told) {
      this.#logger.warn(
        { instance },
        'the stores have no space: the group is asked to give the partitions of this processor to others',
      )
    } else if (!unfit && this.#told) {
      this.#logger.info(
        { instance },
        'the stores have had space again: this processor takes its part of the partitions',
      )
    }
    this.#metrics.unfit.set({ processor: instance }, Number(unfit))
    this.#told = unfit
    return unfit
  }

  /** Whether to join again because of a change. */
  get rejoinDue(): boolean {
    const { unfit = false } = this.#member
    if (unfit === this.#told) this.#changedAt = undefined
    else this.#changedAt ??= performance.now()
    return this.#changedAt !== undefined && performance.now() - this.#changedAt >= SAME_VOLUME_MS
  }
}
