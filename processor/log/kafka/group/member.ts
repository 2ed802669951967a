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

/** Those who wait until the group says the next time that this member is in it. */
export class Confirmations {
  readonly #waiting = new Set<() => void>()

  /** Resolves with the next one, or when `signal` aborts. A claim that is tried for days waits by one signal again and again. */
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
 * Whether a member is fit is told at each join; so long after it has changed, ms, one is asked for. Processors that share a
 * volume and write find out within 5 s of each other: told one by one, each would be given what the one before it had.
 */
const SAME_VOLUME_MS = 10_000

/** What the group knows of whether a member is fit. */
export class Fitness {
  readonly #member: Member
  readonly #metrics: KafkaMetrics
  readonly #logger: Logger
  #told = false
  /** Since when that is not so any more, on the clock of performance.now(). */
  #changedAt: number | undefined

  constructor(member: Member, metrics: KafkaMetrics, logger: Logger) {
    this.#member = member
    this.#metrics = metrics
    this.#logger = logger
  }

  /** To be told with a join. */
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

  /** Whether to join for it. Asked again and again. */
  get rejoinDue(): boolean {
    const { unfit = false } = this.#member
    if (unfit === this.#told) this.#changedAt = undefined
    else this.#changedAt ??= performance.now()
    return this.#changedAt !== undefined && performance.now() - this.#changedAt >= SAME_VOLUME_MS
  }
}

/** A change of the group is learnt by the answer to a heartbeat, ms. */
export const HEARTBEAT_MS = 100
const PROTOCOL = 'tidemark'
const LEAVE_TIMEOUT_MS = 2000
/**
 * So long after the group was last asked, and said that this member is in it, ms, it may have dropped it. Less than the time
 * in which its peers miss a process that is frozen, and five heartbeats.
 */
export const LEASE_MS = 500
/**
 * After an answer that has no name, ms: each join has all members join anew, and to a group whose record is too large for it
 * Kafka answers so again and again.
 */
const NAMELESS_REST_MS = 1000
/** A join that takes longer is late, ms: members hear of it by their next heartbeat, and miss a dead one in less. */
export const LATE_MS = 2000

export interface MemberOptions {
  readonly standbys: number
  /** Failure domain of this process. */
  readonly zone: string | undefined
  /** After so long without a heartbeat the group takes a member for dead, ms. */
  readonly sessionTimeoutMs: number
  /** From one measurement of the load to the next, ms. */
  readonly balanceMs: number
  readonly logger: Logger
}

export interface MemberEvents {
  /** A peer seems dead. */
  readonly suspect: (memberId: string) => void
  /** The group is late to let this member in, again and again. */
  readonly onLate: () => void
}

/** One member's place in the group. */
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
  /** JoinGroup waits for every member, and others of this process are among them: each has a connection of its own. */
  readonly #lane: string
  readonly #confirmations = new Confirmations()
  /** By which the group knows this member; empty while it does not. */
  memberId = ''
  suspended = false
  /** The group may have news: ask it now. */
  nudge: () => void = () => {}
  #generation = -1
  #since: number | null = null
  readonly #refused = Promise.withResolvers<never>()
  #answering = true
  readonly #told = new Reminder()
  /** When what the group last granted was asked for, on the clock of performance.now(). */
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
      onRipe: () => this.nudge(),
    })
  }

  /** Partitions that are to be owned here, and are not taken yet; undefined before the group has told which. */
  get unclaimed(): number[] | undefined {
    return Number.isFinite(this.#grantedAt) ? this.#roles.unclaimed : undefined
  }

  /** Makes the connection to the group's coordinator, which `run` will ask for. */
  connect(): void {
    this.#prepare(this.#claims.cluster.coordinator(this.#lane, GROUP_COORDINATOR, this.#claims.group))
  }

  #prepare(connecting: Promise<unknown>): void {
    connecting.catch((error: unknown) => {
      this.#options.logger.debug({ err: error }, 'a connection could not be made; it is made when it is needed')
    })
  }

  /** Takes part until `signal` aborts; then, and when it rejects, all roles have ended and the group knows. */
  async run(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return
    const stop = new AbortController()
    const over = AbortSignal.any([signal, stop.signal])
    const taking = this.#takePart(over)
    void this.#leader.run(over, () => this.nudge())
    try {
      const { recreated } = this.#claims.cluster.ids
      // Not by `taking` alone: a join is answered only when all others have joined, or are given up.
      await Promise.race([aborted(over), taking, this.#roles.broken, this.#refused.promise, recreated])
    } finally {
      stop.abort()
      this.#peers.close()
      // By the time that another member has heard of it, these roles have mostly ended; what has not is fenced.
      await Promise.all([this.#roles.stop(), this.#leave()])
      // A join under way ends when the group drops the member; one that was not in yet learns its id only by the end.
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
    // It has left by then, and would join anew.
    if (signal.aborted) return
    const subscription = this.#subscription()
    const joining = requests.joinGroup({
      groupId: group,
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: sessionTimeoutMs,
      memberId: this.memberId,
      groupProtocols: [{ name: PROTOCOL, metadata: encodeSubscription(names, subscription) }],
    })
    // Until the others have heard of it there is time for what claims will ask for.
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
    // The leader, of an older version, may tell of everyone.
    const others = peers.filter((peer) => peer.memberId !== memberId)
    this.#peers.watch(others)
    void this.#checkName({ ...subscription, memberId }, others)
    this.#confirm(syncing)
  }

  /**
   * Two live processes with one name would evict each other whenever one starts. Of two that got in at once one must go;
   * and the later one, when the other was silent for so long that it lost its name. Never rejects.
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
      readsIds: true,
      unfit: this.#fitness.report() || undefined,
    }
  }

  /**
   * Heartbeats, until the group asks for a new join by an error; or its leader, here, wants one, what is to be owned here is
   * whole, or this member is not what the group takes it for: the group follows that.
   */
  async #beat(signal: AbortSignal): Promise<void> {
    const { group } = this.#claims
    for (;;) {
      await this.#untilNextBeat(signal)
      if (signal.aborted) return
      if (this.suspended) continue
      if (this.#leader.due || this.#roles.ripe || this.#fitness.rejoinDue) return
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
   * Resolves with the time at which the one that was answered was sent. While the coordinator does not answer, the roles go
   * on: it is the claims that keep them right.
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

  /** `asked`: when it was asked what the group has said now. */
  #confirm(asked: number): void {
    this.#answering = true
    this.#grantedAt = asked
    this.#confirmations.come()
  }

  /** Best effort: a member that cannot say so is missed when its session ends. */
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

/** Has the member leave, whoever it is. It may have left already. */
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
