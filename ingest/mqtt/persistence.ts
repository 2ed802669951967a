import { Readable } from 'node:stream'
import type { Client, Subscription } from 'aedes'
import * as aedesPersistence from 'aedes-persistence'
import { ownCopy } from '../../processor/contract/json.ts'
import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'
import { type RetainedPacket, RetainedStore } from './retained.ts'
import type { Session } from './session.ts'
import { costOf, mayMatchTelemetry, type QoS } from './topics.ts'

/** Sessions that keep state while their client is away, the longest away first. */
class AwaySessions {
  /** Client id -> when it went, steady ms. */
  readonly #since = new Map<string, number>()

  add(clientId: string, now: number): void {
    this.#since.delete(clientId)
    this.#since.set(clientId, now)
  }

  delete(clientId: string): void {
    this.#since.delete(clientId)
  }

  /** The session that is away longest, if it went at `before` or earlier. */
  first(before: number): string | undefined {
    for (const [clientId, since] of this.#since) return since > before ? undefined : clientId
    return undefined
  }

  /** The session that is away longest of those that `isOne` takes. */
  firstOf(isOne: (clientId: string) => boolean): string | undefined {
    for (const clientId of this.#since.keys()) if (isOne(clientId)) return clientId
    return undefined
  }
}

/**
 * A QoS 2 message without PUBREL. `pending`: its append is in flight. `appended`: the log has it. `stored`: aedes has seen
 * it too. `failed`: the log did not take it.
 */
interface Unreleased {
  state: 'pending' | 'appended' | 'stored' | 'failed'
}

/** Packet ids belong to a persistent session, by its client id, or to a clean session, which nobody resumes. */
type Owner = string | Session

/**
 * The packet ids of QoS 2 messages that wait for PUBREL: "method B" of MQTT 3.1.1 section 4.3.3. A message takes effect when
 * PUBLISH arrives; its id, but not the message, is kept so that a retransmission takes none.
 */
export class UnreleasedIds {
  readonly #sessions = new Map<Owner, Map<number, Unreleased>>()
  readonly #max: number
  readonly #makeRoom: () => boolean
  #count = 0

  /** `max`: ids of all sessions. `makeRoom` discards a session; false when there is none to discard. */
  constructor(max: number, makeRoom: () => boolean) {
    this.#max = max
    this.#makeRoom = makeRoom
  }

  hasRoom(): boolean {
    while (this.#count >= this.#max) if (!this.#makeRoom()) return false
    return true
  }

  has(owner: Owner): boolean {
    return this.#sessions.has(owner)
  }

  get(owner: Owner, messageId: number): Unreleased | undefined {
    return this.#sessions.get(owner)?.get(messageId)
  }

  add(owner: Owner, messageId: number): Unreleased {
    const ids = this.#sessions.get(owner) ?? new Map<number, Unreleased>()
    this.#sessions.set(owner, ids)
    const message: Unreleased = { state: 'pending' }
    ids.set(messageId, message)
    this.#count++
    return message
  }

  /** Removes an id if it still stands for `message`: the session may have begun anew meanwhile. */
  delete(owner: Owner, messageId: number, message = this.get(owner, messageId)): void {
    const ids = this.#sessions.get(owner)
    if (ids === undefined || message === undefined || ids.get(messageId) !== message) return
    ids.delete(messageId)
    this.#count--
    if (ids.size === 0) this.#sessions.delete(owner)
  }

  /** The session is over for good. */
  clear(owner: Owner): void {
    this.#count -= this.#sessions.get(owner)?.size ?? 0
    this.#sessions.delete(owner)
  }
}

/** A packet in a session's queue (aedes-packet), or the PUBREL that takes its place. */
export interface StoredPacket {
  cmd: string
  brokerId?: string
  brokerCounter?: number
  topic?: string
  payload?: Buffer | string
  qos?: number
  retain?: boolean
  messageId?: number | undefined
}

// The module is a factory, which its types do not say.
const createMemory = (aedesPersistence as unknown as { default: () => MemoryPersistence }).default

type Who = Pick<Client, 'id'> & { readonly clean?: boolean; readonly session?: Session | undefined }

/**
 * Stands for the subscriptions of a session that has none but other state. aedes would call such a session new, and its
 * client would use packet ids again that still wait for PUBREL.
 */
export const RESUMED: Subscription = { topic: 'resumed', qos: 0 }

/**
 * The state of MQTT itself: retained messages, subscriptions and queues of persistent sessions, unreleased QoS 2 ids. It is
 * in memory: a restart ends all sessions, as MQTT 3.1.1 section 4.1 allows. No telemetry of devices is here. Everything is
 * bounded by `Limits`, which aedes-persistence alone is not. aedes calls these methods by name.
 */
export class Persistence {
  readonly unreleased: UnreleasedIds
  readonly #inner = createMemory()
  readonly #limits: Limits
  readonly #metrics: IngestMetrics
  readonly #retained: RetainedStore<RetainedPacket & StoredPacket>
  /** Filters of each persistent session, and the QoS granted. */
  readonly #filters = new Map<string, Map<string, QoS>>()
  /** The key of the account that each belongs to, and how many each account has. */
  readonly #owners = new Map<string, string>()
  readonly #sessionsOf = new Map<string, number>()
  /** Of all stored filters. */
  #levels = 0
  #telemetryFilters = 0
  readonly #awaySubscribers = new AwaySessions()
  /** Sessions with unreleased QoS 2 ids. */
  readonly #awayPublishers = new AwaySessions()
  readonly #queues = new Map<string, StoredPacket[]>()
  /** Packets sent from a queue, where they stay until they are acknowledged. */
  readonly #owed = new WeakSet<object>()
  #queued = 0
  #queuedBytes = 0

  constructor(limits: Limits, metrics: IngestMetrics) {
    this.#limits = limits
    this.#metrics = metrics
    this.unreleased = new UnreleasedIds(limits.maxUnreleasedTotal, () => this.#discard(this.#awayPublishers))
    this.#retained = new RetainedStore(limits, metrics)
  }

  async setup(broker: unknown): Promise<void> {
    await this.#inner.setup(broker)
  }

  /** Filters of persistent sessions that may match a telemetry topic. */
  get telemetryFilters(): number {
    return this.#telemetryFilters
  }

  /**
   * Stores a subscription of a persistent session of the account `owner`, and discards sessions that are away for it; false
   * when it is full.
   */
  store(clientId: string, subscription: Subscription, owner: string): boolean {
    const { topic, qos } = subscription
    const filters = this.#filters.get(clientId) ?? new Map<string, QoS>()
    const before = filters.get(topic)
    if (before === qos) return true
    if (before === undefined) {
      if (filters.size === 0 && !this.#mayBegin(owner)) return false
      while (this.#isFull(filters.size === 0)) if (!this.#discard(this.#awaySubscribers)) return false
      if (filters.size === 0) this.#own(clientId, owner)
      this.#levels += costOf(topic).levels
      if (mayMatchTelemetry(topic)) this.#telemetryFilters++
    }
    filters.set(topic, qos)
    this.#filters.set(clientId, filters)
    void this.#inner.addSubscriptions({ id: clientId }, [subscription])
    return true
  }

  /** The filters of a persistent session. */
  filtersOf(clientId: string): Iterable<string> {
    return this.#filters.get(clientId)?.keys() ?? []
  }

  #isFull(needsSession: boolean): boolean {
    const { maxStoredSessions, maxSubscriptionLevelsTotal } = this.#limits
    return this.#levels >= maxSubscriptionLevelsTotal || (needsSession && this.#filters.size >= maxStoredSessions)
  }

  /** Whether the account has room for one more session: its own that is away longest makes room, nobody else's. */
  #mayBegin(owner: string): boolean {
    if ((this.#sessionsOf.get(owner) ?? 0) < this.#limits.maxStoredSessionsPerClient) return true
    const id = this.#awaySubscribers.firstOf((clientId) => this.#owners.get(clientId) === owner)
    if (id === undefined) return false
    this.#drop(id)
    return true
  }

  #own(clientId: string, owner: string): void {
    this.#owners.set(clientId, owner)
    this.#sessionsOf.set(owner, (this.#sessionsOf.get(owner) ?? 0) + 1)
  }

  #disown(clientId: string): void {
    const owner = this.#owners.get(clientId)
    if (owner === undefined) return
    this.#owners.delete(clientId)
    const left = (this.#sessionsOf.get(owner) ?? 0) - 1
    if (left > 0) this.#sessionsOf.set(owner, left)
    else this.#sessionsOf.delete(owner)
  }

  came(clientId: string): void {
    this.#awaySubscribers.delete(clientId)
    this.#awayPublishers.delete(clientId)
  }

  /** The client of a persistent session is gone. `now`: steady ms. */
  went(clientId: string, now: number): void {
    if (this.#filters.has(clientId) || this.#queues.has(clientId)) this.#awaySubscribers.add(clientId, now)
    if (this.unreleased.has(clientId)) this.#awayPublishers.add(clientId, now)
  }

  /** MQTT 3.1.1 section 4.1 allows to discard sessions that are away for long. */
  expire(now: number): void {
    const before = now - this.#limits.maxSessionAwayMs
    while (this.#discard(this.#awaySubscribers, before));
    while (this.#discard(this.#awayPublishers, before));
  }

  /** Discards a session whole: a client that is told that its session is there relies on every part of it. */
  #discard(away: AwaySessions, before = Number.POSITIVE_INFINITY): boolean {
    const id = away.first(before)
    if (id === undefined) return false
    this.#drop(id)
    return true
  }

  #drop(id: string): void {
    this.came(id)
    void this.cleanSubscriptions({ id })
    this.#metrics.boundHits.add('sessions away')
  }

  async storeRetained(packet: RetainedPacket & StoredPacket): Promise<void> {
    this.#retained.put(packet)
  }

  createRetainedStreamCombi(filters: readonly string[]): Readable {
    return this.#retained.matching(filters)
  }

  /** Does nothing: `store` took each that was granted, and aedes also gives those that were refused. */
  async addSubscriptions(): Promise<void> {}

  async removeSubscriptions(client: Who, topics: readonly string[]): Promise<void> {
    const filters = this.#filters.get(client.id)
    for (const topic of topics) {
      if (filters?.delete(topic) === true) this.#forgot(topic)
    }
    if (filters?.size === 0) {
      this.#filters.delete(client.id)
      this.#disown(client.id)
    }
    await this.#inner.removeSubscriptions(client, topics)
  }

  #forgot(filter: string): void {
    this.#levels -= costOf(filter).levels
    if (mayMatchTelemetry(filter)) this.#telemetryFilters--
  }

  /** The persistent session is over, with all it has. */
  async cleanSubscriptions(client: Who): Promise<void> {
    this.unreleased.clear(client.id)
    for (const topic of this.#filters.get(client.id)?.keys() ?? []) this.#forgot(topic)
    this.#filters.delete(client.id)
    this.#disown(client.id)
    for (const packet of this.#queues.get(client.id) ?? []) this.#unqueue(packet)
    this.#queues.delete(client.id)
    await this.#inner.cleanSubscriptions(client)
  }

  async subscriptionsByClient(client: Who): Promise<Subscription[]> {
    const subscriptions = await this.#inner.subscriptionsByClient(client)
    const present = this.unreleased.has(client.id) || this.#queues.has(client.id)
    return subscriptions.length === 0 && present ? [RESUMED] : subscriptions
  }

  subscriptionsByTopic(topic: string): Promise<readonly { clientId: string }[]> {
    return this.#inner.subscriptionsByTopic(topic)
  }

  async outgoingEnqueue(subscription: { clientId: string }, packet: StoredPacket): Promise<void> {
    await this.outgoingEnqueueCombi([subscription], packet)
  }

  async outgoingEnqueueCombi(subscriptions: readonly { clientId: string }[], packet: StoredPacket): Promise<void> {
    if (subscriptions.length === 0) return
    const { payload = '' } = packet
    const kept = { ...packet, payload: ownCopy(typeof payload === 'string' ? Buffer.from(payload) : payload) }
    const bytes = queuedBytes(kept)
    const { maxQueued, maxQueuedTotal, maxQueuedBytes } = this.#limits
    // A client is in the list once for each of its filters that match, but gets the message once.
    for (const clientId of new Set(subscriptions.map((subscription) => subscription.clientId))) {
      const queue = this.#queues.get(clientId) ?? []
      if (queue.length >= maxQueued || this.#queued >= maxQueuedTotal || this.#queuedBytes + bytes > maxQueuedBytes) {
        this.#metrics.boundHits.add('session queue')
        continue
      }
      queue.push({ ...kept })
      this.#queues.set(clientId, queue)
      this.#queued++
      this.#queuedBytes += bytes
    }
  }

  /** Notes the packet id that a queued message was sent with, or puts the PUBREL in its place. */
  async outgoingUpdate(client: Who, packet: StoredPacket): Promise<void> {
    const queue = this.#queues.get(client.id)
    if (queue === undefined) return
    for (let i = 0; i < queue.length; i++) {
      const queued = queue[i] as StoredPacket
      if (packet.brokerId !== undefined && queued.brokerId === packet.brokerId) {
        if (queued.brokerCounter !== packet.brokerCounter) continue
        queued.messageId = packet.messageId
        this.#owed.add(packet)
        return
      }
      if (queued.messageId === packet.messageId) {
        this.#queuedBytes += queuedBytes(packet) - queuedBytes(queued)
        queue[i] = packet
        return
      }
    }
    // A message that found the queue full is delivered all the same, once.
  }

  async outgoingClearMessageId(client: Who, packet: StoredPacket): Promise<StoredPacket | undefined> {
    // aedes calls this for each further filter that a message matches; a message without packet id is still to be sent.
    if (packet.messageId === undefined) return undefined
    const queue = this.#queues.get(client.id)
    const i = queue?.findIndex((queued) => queued.messageId === packet.messageId) ?? -1
    if (queue === undefined || i === -1) return undefined
    const [cleared] = queue.splice(i, 1) as [StoredPacket]
    this.#unqueue(cleared)
    if (queue.length === 0) this.#queues.delete(client.id)
    return cleared
  }

  outgoingStream(client: Who): Readable {
    const queue = this.#queues.get(client.id) ?? []
    // A message with a packet id was sent before [MQTT-3.3.1-1].
    return Readable.from(
      queue.map((packet) => (packet.cmd === 'publish' ? { ...packet, dup: packet.messageId !== undefined } : packet)),
    )
  }

  /** A packet from a queue needs an ack to leave it: it must not be sent at QoS 0. */
  isOwed(packet: object): boolean {
    return this.#owed.has(packet)
  }

  #unqueue(packet: StoredPacket): void {
    this.#queued--
    this.#queuedBytes -= queuedBytes(packet)
  }

  /**
   * Resolves when the message is a retransmission. aedes writes PUBREC one promise later, and two after a rejection: one
   * more here keeps PUBRECs in the order of PUBLISHes [MQTT-4.6.0-3].
   */
  async incomingGetPacket(client: Who, packet: StoredPacket): Promise<StoredPacket> {
    const id = packet.messageId as number
    const message = this.unreleased.get(ownerOf(client), id)
    if (message?.state === 'stored') {
      await Promise.resolve()
      return packet
    }
    // The first call after the append is for the message itself, further ones are for retransmissions.
    if (message?.state === 'appended') message.state = 'stored'
    throw new Error(`no message with packet id ${id} was received`)
  }

  /** Does nothing: the bridge added the id before the append. */
  async incomingStorePacket(): Promise<void> {}

  async incomingDelPacket(client: Who, packet: StoredPacket): Promise<void> {
    this.unreleased.delete(ownerOf(client), packet.messageId as number)
  }

  /** A clean session begins or ends. */
  async cleanIncoming({ session }: Who): Promise<void> {
    if (session !== undefined) this.unreleased.clear(session)
  }

  // A will lives and dies with its connection, which holds it.
  async putWill(): Promise<void> {}

  async delWill(): Promise<void> {}

  streamWill(): Readable {
    return Readable.from([])
  }
}

function ownerOf({ id, clean, session }: Who): Owner {
  return clean === true && session !== undefined ? session : id
}

function queuedBytes(packet: StoredPacket): number {
  return (packet.payload?.length ?? 0) + (packet.topic?.length ?? 0)
}

/** The methods of aedes-persistence 11 that are used. */
interface MemoryPersistence {
  setup(broker: unknown): Promise<void>
  addSubscriptions(client: Who, subscriptions: readonly Subscription[]): Promise<void>
  removeSubscriptions(client: Who, topics: readonly string[]): Promise<void>
  cleanSubscriptions(client: Who): Promise<void>
  subscriptionsByClient(client: Who): Promise<Subscription[]>
  subscriptionsByTopic(topic: string): Promise<readonly { clientId: string }[]>
}
