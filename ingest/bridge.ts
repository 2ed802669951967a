import type { Client, PublishPacket } from 'aedes'
import type { NewRecord } from '../processor/contract/record.ts'
import {
  deadLetter,
  HEADER_METRIC,
  HEADER_WILL,
  MAX_PAYLOAD_BYTES,
  type RejectionReason,
} from '../processor/contract/telemetry.ts'
import type { Acks } from './acks.ts'
import type { Connection } from './connection.ts'
import type { Counts } from './counts.ts'
import type { Gather, Hold, Topic } from './gather.ts'
import type { Presence } from './presence.ts'
import type { ReceiptStore, Received } from './receipts.ts'
import type { Session } from './session.ts'
import { type DeviceRoute, isIllFormed, routeOf } from './topics.ts'

/** Called with null, the ack leaves; with an error, the connection is closed without it. */
type Callback = (error?: Error | null) => void

/** A client of aedes on a connection of ours. */
export type MqttClient = Client & {
  readonly conn: Connection
  readonly session: Session | undefined
  readonly will: PublishPacket | null
}

const RESERVED = '$SYS/'
const EMPTY = Buffer.alloc(0)
/** Objects around the bytes of a record under way. */
const RECORD_OVERHEAD_BYTES = 64

/** The ack of one QoS 1 or 2 message. */
class Ack implements Hold {
  readonly #bridge: Bridge
  readonly #connection: Connection
  readonly #bytes: number
  readonly #qos: 1 | 2
  readonly #callback: Callback

  constructor(bridge: Bridge, connection: Connection, bytes: number, qos: 1 | 2, callback: Callback) {
    this.#bridge = bridge
    this.#connection = connection
    this.#bytes = bytes
    this.#qos = qos
    this.#callback = callback
  }

  settle(error: Error | null): void {
    this.#connection.release(this.#bytes)
    if (error === null) this.#bridge.counts.acknowledged[this.#qos]++
    else this.#connection.fail('append failed', error.message)
    this.#callback(error)
  }
}

/** The PUBREC of a message that brings a record. */
class Receipt extends Ack {
  readonly #received: Received
  readonly #forget: () => void

  constructor(ack: ConstructorParameters<typeof Ack>, received: Received, forget: () => void) {
    super(...ack)
    this.#received = received
    this.#forget = forget
  }

  override settle(error: Error | null): void {
    this.#received.state = error === null ? 'appended' : 'failed'
    if (error !== null) this.#forget()
    super.settle(error)
  }
}

/** The PUBREC of a retransmission; it brings no record, and must not leave if the first transmission's was not taken. */
class RepeatedReceipt extends Ack {
  readonly #received: Received

  constructor(ack: ConstructorParameters<typeof Ack>, received: Received) {
    super(...ack)
    this.#received = received
  }

  override settle(error: Error | null): void {
    const taken = this.#received.state !== 'failed'
    super.settle(error ?? (taken ? null : new Error('the log did not take the first transmission')))
  }
}

/** PUBLISH -> record -> append; holds the ack until the log has it. */
export class Bridge {
  readonly counts: Counts
  readonly #gather: Gather
  readonly #presence: Presence
  readonly #receipts: ReceiptStore
  readonly #now: () => number
  /** The broker stops: wills are not published, or a stop would look like the death of a fleet. */
  stopping = false

  constructor(gather: Gather, presence: Presence, receipts: ReceiptStore, counts: Counts, now: () => number) {
    this.#gather = gather
    this.#presence = presence
    this.#receipts = receipts
    this.counts = counts
    this.#now = now
  }

  /**
   * The one hook of aedes before PUBACK and PUBREC (`authorizePublish`): it runs for each PUBLISH, each retransmission,
   * and each will. An error closes the connection without an ack.
   */
  publish(client: MqttClient, packet: PublishPacket, callback: Callback): void {
    const { conn: connection, session } = client
    if (client.will === packet) return this.#will(session, packet, callback)
    const { topic, qos } = packet
    const bytes = packet.length ?? 0
    this.counts.received[qos]++
    if (session === undefined || (qos > 0 && !connection.see(bytes))) return callback(new Error('connection closed'))
    if (topic.startsWith(RESERVED)) {
      if (qos > 0) connection.release(bytes)
      return callback(connection.fail('reserved topic', `topic ${topic} is the broker's own`))
    }
    if (qos === 0) {
      this.#record(session, packet, undefined)
      callback(null)
    } else if (qos === 1) {
      this.#record(session, packet, new Ack(this, connection, bytes, qos, callback))
    } else {
      this.#receive(client, session, packet, [this, connection, bytes, qos, callback])
    }
  }

  /**
   * A message of the fast path, with `bytes` of remaining length. With `acks` it is of QoS 1, and they owe one for
   * `messageId`.
   */
  take(
    session: Session,
    route: DeviceRoute,
    payload: Buffer,
    bytes: number,
    acks: Acks | undefined,
    messageId: number,
  ): void {
    this.counts.received[acks === undefined ? 0 : 1]++
    const record = this.#telemetry(route, payload)
    if (acks === undefined) {
      if (!this.#gather.offer('telemetry', record, bytes + RECORD_OVERHEAD_BYTES)) return
    } else {
      if (!session.connection.see(bytes)) return
      acks.owe(messageId, bytes)
      this.#gather.add('telemetry', record, bytes + RECORD_OVERHEAD_BYTES, acks)
    }
    this.#presence.spoke(session, route.deviceId)
  }

  #receive(client: MqttClient, session: Session, packet: PublishPacket, ack: ConstructorParameters<typeof Ack>): void {
    const messageId = packet.messageId as number
    const before = this.#receipts.get(client.id, messageId)
    if (before !== undefined) return this.#gather.follow(new RepeatedReceipt(ack, before))
    if (!this.#receipts.mayBegin()) {
      this.counts.boundHits.add('unreleased')
      const error = session.connection.fail(
        'too many in flight',
        'too many QoS 2 messages without PUBREL in all sessions',
      )
      return new Ack(...ack).settle(error)
    }
    const received = this.#receipts.begin(client.id, messageId)
    const forget = (): void => this.#receipts.forget(client.id, messageId, received)
    this.#record(session, packet, new Receipt(ack, received, forget))
  }

  #record(session: Session, packet: PublishPacket, hold: Hold | undefined): void {
    const { topic } = packet
    const payload = packet.payload as Buffer
    const route = routeOf(topic)
    if (isIllFormed(topic)) {
      const error = session.connection.fail('malformed packet', 'ill-formed topic')
      return hold?.settle(error)
    }
    if (route.reason !== undefined || payload.length > MAX_PAYLOAD_BYTES) {
      this.#put('dead-letters', this.#letter(packet, route.deviceId, route.reason ?? 'payload-too-large'), packet, hold)
      return
    }
    if (this.#put('telemetry', this.#telemetry(route, payload), packet, hold))
      this.#presence.spoke(session, route.deviceId)
  }

  #telemetry({ deviceId, metric }: DeviceRoute, payload: Buffer): NewRecord {
    const headers = metric === undefined ? undefined : { [HEADER_METRIC]: metric }
    return { key: deviceId, value: payload, timestamp: this.#now(), headers }
  }

  /** False when it was dropped. */
  #put(topic: Topic, record: NewRecord, packet: PublishPacket, hold: Hold | undefined): boolean {
    const bytes = bytesOf(packet)
    if (hold === undefined) return this.#gather.offer(topic, record, bytes)
    this.#gather.add(topic, record, bytes, hold)
    return true
  }

  #letter(packet: PublishPacket, deviceId: string | undefined, reason: RejectionReason): NewRecord {
    this.counts.deadLetters.add(reason)
    const value = packet.payload as Buffer
    return deadLetter(reason, { key: deviceId ?? null, value, timestamp: this.#now() }, { topic: packet.topic })
  }

  #will(session: Session | undefined, packet: PublishPacket, callback: Callback): void {
    const failing = session?.connection.closeReason === 'append failed' || this.#gather.fault !== undefined
    // After DISCONNECT there is no will [MQTT-3.14.4-3], though the broker may not have come to read it.
    if (this.stopping || session === undefined || session.connection.disconnecting || failing) {
      if (failing) this.counts.boundHits.add('will of a failed append')
      return callback(new Error('the will is not published'))
    }
    const payload = (packet.payload as Buffer | undefined) ?? EMPTY
    const route = packet.topic.startsWith(RESERVED) ? undefined : routeOf(packet.topic)
    if (route === undefined) return callback(new Error(`topic ${packet.topic} is the broker's own`))
    const hold: Hold = { settle: (error) => callback(error) }
    if (route.reason !== undefined || payload.length > MAX_PAYLOAD_BYTES) {
      const reason = route.reason ?? 'payload-too-large'
      this.#gather.add(
        'dead-letters',
        this.#letter({ ...packet, payload }, route.deviceId, reason),
        payload.length,
        hold,
      )
      return
    }
    const headers: Record<string, string> = { [HEADER_WILL]: String(session.epoch) }
    if (route.metric !== undefined) headers[HEADER_METRIC] = route.metric
    this.#gather.add(
      'telemetry',
      { key: route.deviceId, value: payload, timestamp: this.#now(), headers },
      payload.length,
      hold,
    )
  }
}

/** What a packet occupies while its record is under way; the topic of a dead letter can be longer than its payload. */
function bytesOf(packet: PublishPacket): number {
  return (packet.length ?? 0) + RECORD_OVERHEAD_BYTES
}
