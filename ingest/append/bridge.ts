import type { Client, PublishPacket } from 'aedes'
import { deadLetter } from '../../processor/contract/dead-letter.ts'
import {
  HEADER_METRIC,
  HEADER_WILL,
  type Headers,
  MAX_PAYLOAD_BYTES,
  type NewRecord,
} from '../../processor/contract/record.ts'
import type { Connection } from '../connection/connection.ts'
import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'
import type { UnreleasedIds } from '../mqtt/persistence.ts'
import type { Presence } from '../mqtt/presence.ts'
import type { Session } from '../mqtt/session.ts'
import { type DeviceRoute, isIllFormed, type LetterRoute, type Route, routeOf } from '../mqtt/topics.ts'
import type { Answer } from './acks.ts'
import type { Appender, Batcher, Hold } from './batcher.ts'

/** A client of aedes on one of our connections. */
export type MqttClient = Client & {
  readonly conn: Connection
  readonly session: Session | undefined
  readonly will: PublishPacket | null
}

const EMPTY = Buffer.alloc(0)
/** The objects around the bytes of a record in memory. */
const RECORD_OVERHEAD_BYTES = 64

/** An ack that waits for a record, and its ticket. */
interface Owed {
  readonly hold: Hold
  readonly ticket: number
}

/** PUBLISH -> record -> append; holds the ack until the log has it. */
export class Bridge {
  readonly metrics: IngestMetrics
  readonly #appender: Appender
  readonly #presence: Presence
  readonly #unreleased: UnreleasedIds
  readonly #maxDenials: number
  readonly #now: () => number
  /** No will is published while the broker stops: a deploy must not look like the death of a fleet. */
  stopping = false
  /** A client had no right to publish there. */
  onDenied: (session: Session, topic: string) => void = () => {}

  constructor(
    appender: Appender,
    presence: Presence,
    unreleased: UnreleasedIds,
    { maxDenials }: Pick<Limits, 'maxDenials'>,
    metrics: IngestMetrics,
    now: () => number,
  ) {
    this.#appender = appender
    this.#presence = presence
    this.#unreleased = unreleased
    this.#maxDenials = maxDenials
    this.metrics = metrics
    this.#now = now
  }

  /**
   * aedes' one hook before PUBACK and PUBREC (`authorizePublish`). It runs for each PUBLISH, each retransmission and each
   * will. An error closes the connection without an ack.
   */
  publish(client: MqttClient, packet: PublishPacket, callback: Answer): void {
    const { conn: connection, session } = client
    if (client.will === packet) return this.#will(session, packet, callback)
    const { qos } = packet
    const bytes = packet.length ?? 0
    this.metrics.received[qos]++
    // [MQTT-2.3.1-1]
    if (qos > 0 && packet.messageId === 0) return callback(client.conn.fail('malformed packet', 'packet id 0'))
    if (session === undefined || (qos > 0 && !connection.see(bytes))) return callback(new Error('connection closed'))
    if (qos === 0) {
      this.#record(session, packet, undefined)
      return callback(null)
    }
    const ticket = session.acks.oweAnswer(qos, bytes, callback)
    if (qos === 1) this.#record(session, packet, { hold: session.acks, ticket })
    else this.#receive(client, session, packet, ticket)
  }

  /** A message of the fast path. `bytes`: its remaining length. `messageId`: undefined at QoS 0. */
  take(session: Session, route: DeviceRoute, payload: Buffer, bytes: number, messageId: number | undefined): void {
    this.metrics.received[messageId === undefined ? 0 : 1]++
    const record = this.#telemetry(route, payload)
    const batcher = this.#appender.of(route.deviceId)
    if (messageId === undefined) {
      if (!batcher.offer(record, bytes + RECORD_OVERHEAD_BYTES)) return
    } else {
      if (!session.connection.see(bytes)) return
      const { acks } = session
      batcher.add(record, bytes + RECORD_OVERHEAD_BYTES, acks, acks.owe(messageId, bytes))
    }
    this.#presence.spoke(session, route.deviceId)
  }

  /** QoS 2: only the first transmission of a packet id brings a record. */
  #receive(client: MqttClient, session: Session, packet: PublishPacket, ticket: number): void {
    const { acks } = session
    const messageId = packet.messageId as number
    const owner = client.clean ? session : client.id
    // By its packet id alone [MQTT-4.3.3-2], whatever DUP says: MQTT.js, for one, sends again without it.
    const before = this.#unreleased.get(owner, messageId)
    if (before !== undefined) {
      // It follows the first transmission in the same batcher, which settles in order.
      const settle = (error: Error | null): void => {
        const taken = before.state === 'appended' || before.state === 'stored'
        acks.settle(error ?? (taken ? null : new Error('the log did not take the first transmission')), ticket)
      }
      return this.#batcher(sort(session, packet.topic, packet.payload as Buffer)).follow({ settle }, ticket)
    }
    if (!this.#unreleased.hasRoom()) {
      this.metrics.boundHits.add('unreleased')
      const detail = 'too many QoS 2 messages without PUBREL in all sessions'
      return acks.settle(session.connection.fail('too many in flight', detail), ticket)
    }
    const message = this.#unreleased.add(owner, messageId)
    const settle = (error: Error | null): void => {
      message.state = error === null ? 'appended' : 'failed'
      if (error !== null) this.#unreleased.delete(owner, messageId, message)
      acks.settle(error, ticket)
    }
    this.#record(session, packet, { hold: { settle }, ticket })
  }

  #record(session: Session, packet: PublishPacket, owed: Owed | undefined): void {
    if (isIllFormed(packet.topic)) {
      const error = session.connection.fail('malformed packet', 'ill-formed topic')
      return owed?.hold.settle(error, owed.ticket)
    }
    const payload = packet.payload as Buffer
    const route = sort(session, packet.topic, payload)
    const record =
      route.reason === undefined ? this.#telemetry(route, payload) : this.#letter(session, packet.topic, payload, route)
    const batcher = this.#batcher(route)
    // The topic of a dead letter can be longer than its payload.
    const bytes = (packet.length ?? 0) + RECORD_OVERHEAD_BYTES
    if (owed !== undefined) batcher.add(record, bytes, owed.hold, owed.ticket)
    else if (!batcher.offer(record, bytes)) return
    if (route.reason === undefined) this.#presence.spoke(session, route.deviceId)
    else if (route.reason === 'not-allowed' && !session.deny(performance.now(), this.#maxDenials)) {
      session.connection.fail('not allowed', 'too many messages that the client may not publish')
    }
  }

  #batcher(route: Route): Batcher {
    return route.reason === undefined ? this.#appender.of(route.deviceId) : this.#appender.letters
  }

  #telemetry({ deviceId, metric }: DeviceRoute, payload: Buffer, will?: Headers): NewRecord {
    const headers = metric === undefined ? will : { ...will, [HEADER_METRIC]: metric }
    return { key: deviceId, value: payload, timestamp: this.#now(), headers }
  }

  #letter(session: Session, topic: string, payload: Buffer, { deviceId, reason }: LetterRoute): NewRecord {
    this.metrics.deadLetters.add(reason)
    const denied = reason === 'not-allowed'
    if (denied) {
      this.metrics.denials.add('publish')
      this.onDenied(session, topic)
    }
    // Who sent it, not the device that it speaks of: otherwise a client could fill the letters of another.
    const key = denied ? session.principal.id : (deviceId ?? null)
    return deadLetter(reason, { key, value: payload, timestamp: this.#now() }, { topic })
  }

  #will(session: Session | undefined, packet: PublishPacket, callback: Answer): void {
    const { topic } = packet
    const payload = (packet.payload as Buffer | undefined) ?? EMPTY
    if (session === undefined) return callback(new Error('the will is not published'))
    const route = sort(session, topic, payload)
    const fault = route.reason === undefined ? this.#appender.faultOf(route.deviceId) : this.#appender.faultOfLetters
    const failing = session.connection.closeReason === 'append failed' || fault !== undefined
    // After DISCONNECT there is no will [MQTT-3.14.4-3], even if aedes has not read it yet.
    if (this.stopping || session.connection.disconnecting || failing) {
      if (failing) this.metrics.boundHits.add('will of a failed append')
      return callback(new Error('the will is not published'))
    }
    const record =
      route.reason === undefined
        ? this.#telemetry(route, payload, { [HEADER_WILL]: String(session.epoch) })
        : this.#letter(session, topic, payload, route)
    this.#batcher(route).add(record, payload.length, { settle: (error) => callback(error) }, 0)
  }
}

function sort({ principal }: Session, topic: string, payload: Buffer): Route {
  const route = routeOf(topic)
  // Nobody may publish to a reserved topic, whatever its rights.
  if (route.reason === 'reserved-topic') return route
  if (!principal.mayPublish(topic, route.deviceId)) return { ...route, reason: 'not-allowed' }
  const fits = route.reason !== undefined || payload.length <= MAX_PAYLOAD_BYTES
  return fits ? route : { ...route, reason: 'payload-too-large' }
}
