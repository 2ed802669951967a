import { Readable } from 'node:stream'
import type { Client, Subscription } from 'aedes'
import * as aedesPersistence from 'aedes-persistence'
import { ownCopy } from '../../processor/contract/json.ts'
import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'
import { type RetainedPacket, RetainedStore } from './retained.ts'
import type { Session } from './session.ts'
import { mayMatchTelemetry, type QoS } from './topics.ts'

/** Sessions that keep state while their client is away, the longest away first. */
export class Away {
  /** Client id -> when it went, ms, of a clock that nobody sets. */
  readonly #since = new Map<string, number>()

  add(clientId: string, now: number): void {
    this.#since.delete(clientId)
    this.#since.set(clientId, now)
  }

  delete(clientId: string): void {
    this.#since.delete(clientId)
  }

  /** Takes out the one that is away longest, if it went at `before` or earlier. */
  take(before = Number.POSITIVE_INFINITY): string | undefined {
    for (const [clientId, since] of this.#since) {
      if (since > before) return undefined
      this.#since.delete(clientId)
      return clientId
    }
    return undefined
  }
}

/**
 * A QoS 2 message that was received and not released. `pending`: its append is under way. `appended`: in the log.
 * `stored`: the broker has it too, and waits for PUBREL. `failed`: the log did not take it.
 */
export interface Received {
  state: 'pending' | 'appended' | 'stored' | 'failed'
}

/** Whose packet ids: of a persistent session its client id, of a clean one the session itself, which nobody resumes. */
export type Owner = string | Session

/**
 * QoS 2 "method B" of MQTT 3.1.1 section 4.3.3: a message takes effect when PUBLISH arrives, and its packet id is kept
 * until PUBREL so that a retransmission takes none. Only ids are kept, never messages.
 */
export class ReceiptStore {
  readonly #sessions = new Map<Owner, Map<number, Received>>()
  readonly #max: number
  readonly #makeRoom: () => boolean
  #count = 0

  /** `max`: ids of all sessions; `makeRoom` clears those of one, or says that there is none to clear. */
  constructor(max: number, makeRoom: () => boolean) {
    this.#max = max
    this.#makeRoom = makeRoom
  }

  /** One more id may be kept. */
  mayBegin(): boolean {
    while (this.#count >= this.#max) if (!this.#makeRoom()) return false
    return true
  }

  has(owner: Owner): boolean {
    return this.#sessions.has(owner)
  }

  get(owner: Owner, messageId: number): Received | undefined {
    return this.#sessions.get(owner)?.get(messageId)
  }

  begin(owner: Owner, messageId: number): Received {
    const receipts = this.#sessions.get(owner) ?? new Map<number, Received>()
    this.#sessions.set(owner, receipts)
    const received: Received = { state: 'pending' }
    receipts.set(messageId, received)
    this.#count++
    return received
  }

  /** Removes an id, if it still stands for `received`: the session may have begun anew meanwhile. */
  forget(owner: Owner, messageId: number, received = this.get(owner, messageId)): void {
    const receipts = this.#sessions.get(owner)
    if (receipts === undefined || received === undefined || receipts.get(messageId) !== received) return
    receipts.delete(messageId)
    this.#count--
    if (receipts.size === 0) this.#sessions.delete(owner)
  }

  /** The session is over for good. */
  clear(owner: Owner): void {
    this.#count -= this.#sessions.get(owner)?.size ?? 0
    this.#sessions.delete(owner)
  }
}

/** A packet as the broker keeps it (aedes-packet), and the PUBREL that takes its place. */
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
 * Stands for the subscriptions of a session that has none. aedes takes a session without subscriptions for a new one,
 * and its client, which is told so, would begin its packet ids anew: those that wait for PUBREL must not be among them.
 */
export const RESUMED: Subscription = { topic: 'resumed', qos: 0 }

/**
 * What the broker keeps for MQTT itself: retained messages, subscriptions and queues of persistent sessions, QoS 2
 * receipts. In memory: a restart of the broker ends all sessions, as MQTT 3.1.1 section 4.1 allows; nothing of the
 * devices' telemetry is here. Everything is bounded (`Limits`), which the memory persistence of aedes is not.
 * Methods are those aedes calls; subscriptions are aedes-persistence's.
 */
export class Persistence {
  readonly receipts: ReceiptStore
  readonly #inner = createMemory()
  readonly #limits: Limits
  readonly #metrics: IngestMetrics
  readonly #retained: RetainedStore<RetainedPacket & StoredPacket>
  /** Filters of each persistent session, and the QoS granted. */
  readonly #filters = new Map<string, Map<string, QoS>>()
  #stored = 0
  #telemetryFilters = 0
  /** Sessions of clients that are not connected: those with subscriptions, and those with QoS 2 receipts. */
  readonly #awaySubscribers = new Away()
  readonly #awayPublishers = new Away()
  readonly #queues = new Map<string, StoredPacket[]>()
  readonly #owed = new WeakSet<object>()
  #queued = 0
  #queuedBytes = 0

  constructor(limits: Limits, metrics: IngestMetrics) {
    this.#limits = limits
    this.#metrics = metrics
    this.receipts = new ReceiptStore(limits.maxUnreleasedTotal, () => this.#discard(this.#awayPublishers))
    this.#retained = new RetainedStore(limits, metrics)
  }

  async setup(broker: unknown): Promise<void> {
    await this.#inner.setup(broker)
  }

  /** Filters of persistent sessions that may match a telemetry topic. */
  get telemetryFilters(): number {
    return this.#telemetryFilters
  }

  /** Stores a subscription of a persistent session, if need be in the place of one that is away; false when it is full. */
  store(clientId: string, subscription: Subscription): boolean {
    const { topic, qos } = subscription
    const filters = this.#filters.get(clientId) ?? new Map<string, QoS>()
    const before = filters.get(topic)
    if (before === qos) return true
    if (before === undefined) {
      if (filters.size >= this.#limits.maxSubscriptions) return false
      while (this.#isFull(filters.size === 0)) if (!this.#discard(this.#awaySubscribers)) return false
      this.#stored++
      if (mayMatchTelemetry(topic)) this.#telemetryFilters++
    }
    filters.set(topic, qos)
    this.#filters.set(clientId, filters)
    void this.#inner.addSubscriptions({ id: clientId }, [subscription])
    return true
  }

  #isFull(needsSession: boolean): boolean {
    const { maxStoredSessions, maxSubscriptionsTotal } = this.#limits
    return this.#stored >= maxSubscriptionsTotal || (needsSession && this.#filters.size >= maxStoredSessions)
  }

  /** The client is connected. */
  came(clientId: string): void {
    this.#awaySubscribers.delete(clientId)
    this.#awayPublishers.delete(clientId)
  }

  /** It is not any more, and its session not clean. `now`: ms, of a clock that nobody sets. */
  went(clientId: string, now: number): void {
    if (this.#filters.has(clientId) || this.#queues.has(clientId)) this.#awaySubscribers.add(clientId, now)
    if (this.receipts.has(clientId)) this.#awayPublishers.add(clientId, now)
  }

  /** Discards sessions that are away too long, as MQTT 3.1.1 section 4.1 allows. */
  expire(now: number): void {
    const before = now - this.#limits.maxSessionAwayMs
    while (this.#discard(this.#awaySubscribers, before));
    while (this.#discard(this.#awayPublishers, before));
  }

  /** All of a session: a client that is told its session is there metrics on every part of it. */
  #discard(away: Away, before?: number): boolean {
    const id = away.take(before)
    if (id === undefined) return false
    this.came(id)
    void this.cleanSubscriptions({ id })
    this.#metrics.boundHits.add('sessions away')
    return true
  }

  async storeRetained(packet: RetainedPacket & StoredPacket): Promise<void> {
    this.#retained.put(packet)
  }

  createRetainedStreamCombi(filters: readonly string[]): Readable {
    return this.#retained.matching(filters)
  }

  /** Each was stored when it was granted: aedes hands over the whole list, with what was refused, or is malformed. */
  async addSubscriptions(): Promise<void> {}

  async removeSubscriptions(client: Who, topics: readonly string[]): Promise<void> {
    const filters = this.#filters.get(client.id)
    for (const topic of topics) {
      if (filters?.delete(topic) === true) this.#forgot(topic)
    }
    if (filters?.size === 0) this.#filters.delete(client.id)
    await this.#inner.removeSubscriptions(client, topics)
  }

  #forgot(filter: string): void {
    this.#stored--
    if (mayMatchTelemetry(filter)) this.#telemetryFilters--
  }

  /** The persistent session is over, with all it has. */
  async cleanSubscriptions(client: Who): Promise<void> {
    this.receipts.clear(client.id)
    for (const topic of this.#filters.get(client.id)?.keys() ?? []) this.#forgot(topic)
    this.#filters.delete(client.id)
    for (const packet of this.#queues.get(client.id) ?? []) this.#unqueue(packet)
    this.#queues.delete(client.id)
    await this.#inner.cleanSubscriptions(client)
  }

  async subscriptionsByClient(client: Who): Promise<Subscription[]> {
    const subscriptions = await this.#inner.subscriptionsByClient(client)
    const present = this.receipts.has(client.id) || this.#queues.has(client.id)
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
    const bytes = bytesOf(kept)
    const { maxQueued, maxQueuedTotal, maxQueuedBytes } = this.#limits
    // A client is here once for each of its filters that match, and gets the message once.
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

  /** Notes the packet id a queued message was sent with, or puts the PUBREL in its place. */
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
        this.#queuedBytes += bytesOf(packet) - bytesOf(queued)
        queue[i] = packet
        return
      }
    }
    // It was not queued, as the queue was full: it is delivered all the same, once.
  }

  async outgoingClearMessageId(client: Who, packet: StoredPacket): Promise<StoredPacket | undefined> {
    // aedes asks so for each filter beyond the first that a message matches; what has no packet id yet is still to be sent.
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
    // One with a packet id was sent before [MQTT-3.3.1-1].
    return Readable.from(
      queue.map((packet) => (packet.cmd === 'publish' ? { ...packet, dup: packet.messageId !== undefined } : packet)),
    )
  }

  /** It is from a session's queue, where it stays until it is acknowledged: so it is not for QoS 0. */
  isOwed(packet: object): boolean {
    return this.#owed.has(packet)
  }

  #unqueue(packet: StoredPacket): void {
    this.#queued--
    this.#queuedBytes -= bytesOf(packet)
  }

  /**
   * Resolves when a message with this id was received before. aedes writes PUBREC one promise after that, and two after
   * a rejection; one promise more here keeps PUBRECs in the order of PUBLISHes [MQTT-4.6.0-3].
   */
  async incomingGetPacket(client: Who, packet: StoredPacket): Promise<StoredPacket> {
    const id = packet.messageId as number
    const received = this.receipts.get(ownerOf(client), id)
    if (received?.state === 'stored') {
      await Promise.resolve()
      return packet
    }
    // The first to ask after the append is the message itself; whoever asks next is a retransmission.
    if (received?.state === 'appended') received.state = 'stored'
    throw new Error(`no message with packet id ${id} was received`)
  }

  /** The bridge has stored the id before the append. */
  async incomingStorePacket(): Promise<void> {}

  async incomingDelPacket(client: Who, packet: StoredPacket): Promise<void> {
    this.receipts.forget(ownerOf(client), packet.messageId as number)
  }

  /** A clean session begins, or ends. */
  async cleanIncoming({ session }: Who): Promise<void> {
    if (session !== undefined) this.receipts.clear(session)
  }

  // A will lives as long as its connection, which holds it.
  async putWill(): Promise<void> {}

  async delWill(): Promise<void> {}

  streamWill(): Readable {
    return Readable.from([])
  }
}

function ownerOf({ id, clean, session }: Who): Owner {
  return clean === true && session !== undefined ? session : id
}

function bytesOf(packet: StoredPacket): number {
  return (packet.payload?.length ?? 0) + (packet.topic?.length ?? 0)
}

/** What is used of the memory persistence of aedes-persistence 11. */
interface MemoryPersistence {
  setup(broker: unknown): Promise<void>
  addSubscriptions(client: Who, subscriptions: readonly Subscription[]): Promise<void>
  removeSubscriptions(client: Who, topics: readonly string[]): Promise<void>
  cleanSubscriptions(client: Who): Promise<void>
  subscriptionsByClient(client: Who): Promise<Subscription[]>
  subscriptionsByTopic(topic: string): Promise<readonly { clientId: string }[]>
}
