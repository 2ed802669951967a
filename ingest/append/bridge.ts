import type { Client, PublishPacket } from 'aedes'
import { deadLetter } from '../../processor/contract/dead-letter.ts'
import type { Headers, NewRecord } from '../../processor/contract/record.ts'
import { HEADER_METRIC, HEADER_WILL, MAX_PAYLOAD_BYTES } from '../../processor/contract/telemetry.ts'
import type { Connection } from '../connection/connection.ts'
import type { IngestMetrics } from '../metrics.ts'
import type { ReceiptStore, Received } from '../mqtt/persistence.ts'
import type { Presence } from '../mqtt/presence.ts'
import type { Session } from '../mqtt/session.ts'
import { type DeviceRoute, isIllFormed, type LetterRoute, type Route, routeOf } from '../mqtt/topics.ts'
import type { Acks, Answer } from './acks.ts'
import type { Appender, Batcher, Hold } from './batcher.ts'

/** A client of aedes on a connection of ours. */
export type MqttClient = Client & {
  readonly conn: Connection
  readonly session: Session | undefined
  readonly will: PublishPacket | null
}

const EMPTY = Buffer.alloc(0)
/** Objects around the bytes of a record under way. */
const RECORD_OVERHEAD_BYTES = 64

/** A place in the order of a connection's acks. */
interface Owed {
  readonly acks: Acks
  readonly ticket: number
}

/** The PUBREC of a message that brings a record. */
class Receipt implements Hold {
  readonly #acks: Acks
  readonly #received: Received
  readonly #forget: () => void

  constructor(acks: Acks, received: Received, forget: () => void) {
    this.#acks = acks
    this.#received = received
    this.#forget = forget
  }

  settle(error: Error | null, ticket: number): void {
    this.#received.state = error === null ? 'appended' : 'failed'
    if (error !== null) this.#forget()
    this.#acks.settle(error, ticket)
  }
}

/** The PUBREC of a retransmission; it brings no record, and must not leave unless the first transmission's was taken. */
class RepeatedReceipt implements Hold {
  readonly #acks: Acks
  readonly #received: Received

  constructor(acks: Acks, received: Received) {
    this.#acks = acks
    this.#received = received
  }

  settle(error: Error | null, ticket: number): void {
    const { state } = this.#received
    const taken = state === 'appended' || state === 'stored'
    this.#acks.settle(error ?? (taken ? null : new Error('the log did not take the first transmission')), ticket)
  }
}

/** PUBLISH -> record -> append; holds the ack until the log has it. */
export class Bridge {
  readonly metrics: IngestMetrics
  readonly #appender: Appender
  readonly #presence: Presence
  readonly #receipts: ReceiptStore
  readonly #now: () => number
  /** The broker stops: wills are not published, or a stop would look like the death of a fleet. */
  stopping = false

  constructor(
    appender: Appender,
    presence: Presence,
    receipts: ReceiptStore,
    metrics: IngestMetrics,
    now: () => number,
  ) {
    this.#appender = appender
    this.#presence = presence
    this.#receipts = receipts
    this.metrics = metrics
    this.#now = now
  }

  /**
   * The one hook of aedes before PUBACK and PUBREC (`authorizePublish`): it runs for each PUBLISH, each retransmission,
   * and each will. An error closes the connection without an ack.
   */
  publish(client: MqttClient, packet: PublishPacket, callback: Answer): void {
    const { conn: connection, session } = client
    if (client.will === packet) return this.#will(session, packet, callback)
    const { qos } = packet
    const bytes = packet.length ?? 0
    this.metrics.received[qos]++
    if (session === undefined || (qos > 0 && !connection.see(bytes))) return callback(new Error('connection closed'))
    if (qos === 0) {
      this.#record(session, packet, undefined)
      return callback(null)
    }
    const { acks } = session
    const ticket = acks.oweAnswer(qos, bytes, callback)
    if (qos === 1) this.#record(session, packet, { acks, ticket })
    else this.#receive(client, session, packet, { acks, ticket })
  }

  /** A message of the fast path, with `bytes` of remaining length and, of QoS 1, the packet id to acknowledge. */
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

  #receive(client: MqttClient, session: Session, packet: PublishPacket, { acks, ticket }: Owed): void {
    const messageId = packet.messageId as number
    const owner = client.clean ? session : client.id
    // By its packet id alone [MQTT-4.3.3-2], whatever DUP says: MQTT.js, for one, sends again without it.
    const before = this.#receipts.get(owner, messageId)
    if (before !== undefined) {
      // There the first transmission is settled before.
      return this.#batcher(sort(packet.topic, packet.payload as Buffer)).follow(
        new RepeatedReceipt(acks, before),
        ticket,
      )
    }
    if (!this.#receipts.mayBegin()) {
      this.metrics.boundHits.add('unreleased')
      const error = session.connection.fail(
        'too many in flight',
        'too many QoS 2 messages without PUBREL in all sessions',
      )
      return acks.settle(error, ticket)
    }
    const received = this.#receipts.begin(owner, messageId)
    const forget = (): void => this.#receipts.forget(owner, messageId, received)
    this.#record(session, packet, { acks: new Receipt(acks, received, forget), ticket })
  }

  #record(session: Session, packet: PublishPacket, owed: { acks: Hold; ticket: number } | undefined): void {
    if (isIllFormed(packet.topic)) {
      const error = session.connection.fail('malformed packet', 'ill-formed topic')
      return owed?.acks.settle(error, owed.ticket)
    }
    const payload = packet.payload as Buffer
    const route = sort(packet.topic, payload)
    const record =
      route.reason === undefined ? this.#telemetry(route, payload) : this.#letter(packet.topic, payload, route)
    const batcher = this.#batcher(route)
    const bytes = bytesOf(packet)
    if (owed !== undefined) batcher.add(record, bytes, owed.acks, owed.ticket)
    else if (!batcher.offer(record, bytes)) return
    if (route.reason === undefined) this.#presence.spoke(session, route.deviceId)
  }

  #batcher(route: Route): Batcher {
    return route.reason === undefined ? this.#appender.of(route.deviceId) : this.#appender.letters
  }

  #telemetry({ deviceId, metric }: DeviceRoute, payload: Buffer, will?: Headers): NewRecord {
    const headers = metric === undefined ? will : { ...will, [HEADER_METRIC]: metric }
    return { key: deviceId, value: payload, timestamp: this.#now(), headers }
  }

  #letter(topic: string, payload: Buffer, { deviceId, reason }: LetterRoute): NewRecord {
    this.metrics.deadLetters.add(reason)
    return deadLetter(reason, { key: deviceId ?? null, value: payload, timestamp: this.#now() }, { topic })
  }

  #will(session: Session | undefined, packet: PublishPacket, callback: Answer): void {
    const { topic } = packet
    const payload = (packet.payload as Buffer | undefined) ?? EMPTY
    const route = sort(topic, payload)
    const fault = route.reason === undefined ? this.#appender.faultOf(route.deviceId) : this.#appender.faultOfLetters
    const failing = session?.connection.closeReason === 'append failed' || fault !== undefined
    // After DISCONNECT there is no will [MQTT-3.14.4-3], though the broker may not have come to read it.
    if (this.stopping || session === undefined || session.connection.disconnecting || failing) {
      if (failing) this.metrics.boundHits.add('will of a failed append')
      return callback(new Error('the will is not published'))
    }
    const record =
      route.reason === undefined
        ? this.#telemetry(route, payload, { [HEADER_WILL]: String(session.epoch) })
        : this.#letter(topic, payload, route)
    this.#batcher(route).add(record, payload.length, { settle: (error) => callback(error) }, 0)
  }
}

function sort(topic: string, payload: Buffer): Route {
  const route = routeOf(topic)
  const fits = route.reason !== undefined || payload.length <= MAX_PAYLOAD_BYTES
  return fits ? route : { ...route, reason: 'payload-too-large' }
}

/** What a packet occupies while its record is under way; the topic of a dead letter can be longer than its payload. */
function bytesOf(packet: PublishPacket): number {
  return (packet.length ?? 0) + RECORD_OVERHEAD_BYTES
}
