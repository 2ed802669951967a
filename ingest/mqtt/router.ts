import { Aedes, type AedesPublishPacket, type PublishPacket } from 'aedes'
import type { MqttClient } from '../append/bridge.ts'
import type { Limits } from '../limits.ts'
import type { Persistence } from './persistence.ts'
import { costOf, inTelemetryTree, isReserved, isTooDeep, mayMatchTelemetry, routeOf } from './topics.ts'

type Done = (error?: Error | null) => void
export type Deliver = (packet: AedesPublishPacket, done: () => void) => void

/** Methods of aedes 1.2, some missing in its types. */
interface AedesInternals {
  maxTopicLevels: number
  publish(packet: PublishPacket, client: unknown, done?: Done): void
  subscribe(filter: string, deliver: Deliver, done: () => void): void
  unsubscribe(filter: string, deliver: Deliver, done: () => void): void
  registerClient(client: MqttClient): void
  _finishRegisterClient(client: MqttClient): void
  unregisterClient(client: MqttClient): void
}
const internals = Aedes.prototype as unknown as AedesInternals

/**
 * aedes, with these differences:
 * - a telemetry message is not routed while no subscription can match it;
 * - a client's message to a reserved topic, to one of more than a hundred levels, or to one where the client may not
 *   publish, is neither routed nor retained;
 * - a publisher does not wait for subscribers, which have bounds of their own;
 * - a client that is being replaced cannot unregister its successor, and only the last successor stays [MQTT-3.1.4-2].
 */
export class Router extends Aedes {
  /** Subscriptions of connected clients, with their levels, and those that may match telemetry. aedes may end one twice. */
  readonly #subscribers = new Map<Deliver, number>()
  #levels = 0
  readonly #telemetrySubscribers = new Set<Deliver>()
  readonly #persistence: Persistence
  /** Client id -> the client that is registered once the one it takes over has gone. */
  readonly #successors = new Map<string, MqttClient>()

  constructor(limits: Limits, persistence: Persistence) {
    super({
      persistence,
      // No limit of concurrent deliveries: one frozen subscriber would use them all up.
      concurrency: 0,
      connectTimeout: limits.connectTimeoutMs,
      drainTimeout: limits.drainTimeoutMs,
      maxInflightInbound: limits.maxUnreleased,
    })
    this.#persistence = persistence
    // Above its limit aedes closes the connection without an ack: the client would send the message again for ever.
    const inherited = this as unknown as Pick<AedesInternals, 'maxTopicLevels'>
    inherited.maxTopicLevels = Number.POSITIVE_INFINITY
  }

  /** Of all filters of connected clients. */
  get levels(): number {
    return this.#levels
  }

  /** A telemetry message may reach a subscriber. */
  get routesTelemetry(): boolean {
    return this.#telemetrySubscribers.size > 0 || this.#persistence.telemetryFilters > 0
  }

  override publish(packet: PublishPacket, client: unknown, done?: Done): void {
    if (typeof client === 'function' || client === null || client === undefined) {
      internals.publish.call(this, packet, client, done)
      return
    }
    const { topic, retain } = packet
    const mayReach = retain || this.routesTelemetry || !inTelemetryTree(topic)
    const { session } = client as MqttClient
    const isAllowed = session?.principal.mayPublish(topic, routeOf(topic).deviceId) === true
    if (mayReach && isAllowed && !isReserved(topic) && !isTooDeep(topic)) {
      // [MQTT-3.3.1-3]
      packet.dup = false
      internals.publish.call(this, packet, client)
    }
    done?.(null)
  }

  override subscribe(filter: string, deliver: Deliver, done: () => void): void {
    const { levels } = costOf(filter)
    this.#subscribers.set(deliver, levels)
    this.#levels += levels
    if (mayMatchTelemetry(filter)) this.#telemetrySubscribers.add(deliver)
    internals.subscribe.call(this, filter, deliver, done)
  }

  override unsubscribe(filter: string, deliver: Deliver, done: () => void): void {
    this.#levels -= this.#subscribers.get(deliver) ?? 0
    this.#subscribers.delete(deliver)
    this.#telemetrySubscribers.delete(deliver)
    internals.unsubscribe.call(this, filter, deliver, done)
  }

  registerClient(client: MqttClient): void {
    const { id } = client
    const before = this.#clients[id]
    const successor = this.#successors.get(id)
    if (client.closed) return
    if (before === undefined) {
      internals._finishRegisterClient.call(this, client)
      return
    }
    this.#successors.set(id, client)
    if (successor !== undefined) {
      successor.close()
      return
    }
    before.close(() => {
      const last = this.#successors.get(id)
      this.#successors.delete(id)
      if (last?.closed === false) internals._finishRegisterClient.call(this, last)
    })
  }

  unregisterClient(client: MqttClient): void {
    if (this.#clients[client.id] === client) internals.unregisterClient.call(this, client)
    else this.emit('clientDisconnect', client)
  }

  get #clients(): Readonly<Record<string, MqttClient>> {
    return (this as unknown as { clients: Record<string, MqttClient> }).clients
  }
}
