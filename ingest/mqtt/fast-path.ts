import { ownCopy } from '../../processor/contract/json.ts'
import { MAX_PAYLOAD_BYTES } from '../../processor/contract/telemetry.ts'
import type { Bridge } from '../append/bridge.ts'
import type { Connection } from '../connection/connection.ts'
import { type Header, PUBLISH, readHeader } from '../connection/framing.ts'
import type { Router } from './router.ts'
import type { Session } from './session.ts'
import { isIllFormed, routeOf } from './topics.ts'

/** A client of aedes 1.2, some of which its types leave out. */
interface Client {
  readonly conn: Connection
  readonly session: Session | undefined
  readonly connackSent: boolean
  readonly _parser: { parse(chunk: Buffer): number }
  readonly _keepaliveTimer: NodeJS.Timeout | null
}

const RETAIN = 1
const header: Header = { type: 0, qos: 0, bytes: 0, length: 0 }

/**
 * Stands before the broker's parser. Nearly all that a fleet sends is telemetry of QoS 0 and 1 that nobody subscribes
 * to, of which the broker has only the ack to send: it is taken out here and given to the bridge. All else goes to the
 * parser, which deals with each packet as soon as it has all of it, so that packets keep their order.
 */
export class FastPath {
  readonly #client: Client
  readonly #bridge: Bridge
  readonly #router: Router
  readonly #parse: (chunk: Buffer) => number
  /** Bytes the parser has yet to get of the packet it is at. */
  #missing = 0

  constructor(client: Client, bridge: Bridge, router: Router) {
    this.#client = client
    this.#bridge = bridge
    this.#router = router
    this.#parse = client._parser.parse.bind(client._parser)
  }

  /** A `Connection` hands on no fixed header that is not whole. Throws as the parser does. */
  parse(chunk: Buffer): void {
    const client = this.#client
    let at = Math.min(this.#missing, chunk.length)
    if (at > 0) this.#parse(chunk.subarray(0, at))
    this.#missing -= at
    let taken = 0
    let parsed = 0
    while (at < chunk.length && !client.conn.destroyed) {
      const state = readHeader(chunk, at, Number.MAX_SAFE_INTEGER, header)
      if (state !== 'whole') throw new Error(`${state} fixed header`)
      const end = at + header.bytes + header.length
      if (end <= chunk.length && this.#take(chunk, at, end)) {
        taken++
      } else {
        if (header.type === PUBLISH) parsed++
        // What is not whole waits there, for as long as the client likes; the chunk may be a part of what was read.
        const isPart = end > chunk.length && chunk.length - at < chunk.buffer.byteLength
        this.#parse(isPart ? ownCopy(chunk.subarray(at)) : chunk.subarray(at, end))
        this.#missing = Math.max(0, end - chunk.length)
      }
      at = end
    }
    if (taken > 0) client._keepaliveTimer?.refresh()
    if (taken + parsed > 0) client.conn.published(taken, parsed)
  }

  /** Takes the packet at `at` to `end`, whose header was read; false when it is not of the plain kind. */
  #take(chunk: Buffer, at: number, end: number): boolean {
    const { type, qos, bytes, length } = header
    const { conn, session, connackSent } = this.#client
    if (type !== PUBLISH || qos > 1 || ((chunk[at] as number) & RETAIN) !== 0 || !connackSent) return false
    // The broker does not read on while the acks it writes are not read.
    if (session === undefined || conn.clogged || this.#router.routesTelemetry) return false
    const topic = at + bytes + 2
    const topicEnd = topic + word(chunk, topic - 2)
    const route = routeOf(chunk.toString('utf8', topic, topicEnd))
    if (route.reason !== undefined || !isPlain(route.metric)) return false
    const payload = topicEnd + (qos > 0 ? 2 : 0)
    const messageId = qos > 0 ? word(chunk, topicEnd) : undefined
    if (end - payload > MAX_PAYLOAD_BYTES || messageId === 0) return false
    this.#bridge.take(session, route, chunk.subarray(payload, end), length, messageId)
    return true
  }
}

function word(chunk: Buffer, at: number): number {
  return ((chunk[at] as number) << 8) | (chunk[at + 1] as number)
}

/** The broker closes the connection when a name it publishes to has a wildcard, and checks what is ill-formed. */
function isPlain(metric: string | undefined): boolean {
  return metric === undefined || !(/[+#]/.test(metric) || isIllFormed(metric))
}
