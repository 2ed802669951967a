import { ownCopy } from '../../processor/contract/json.ts'
import { MAX_PAYLOAD_BYTES } from '../../processor/contract/record.ts'
import type { Bridge } from '../append/bridge.ts'
import type { Connection } from '../connection/connection.ts'
import { type Header, PUBLISH, readHeader } from '../connection/framing.ts'
import type { Router } from './router.ts'
import type { Session } from './session.ts'
import { isIllFormed, routeOf } from './topics.ts'

/** Internals of a client of aedes 1.2, some missing in its types. */
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
 * Stands before aedes' parser. Nearly all packets of a fleet are telemetry of QoS 0 and 1 that nobody subscribes to, for
 * which aedes would only send the ack: they go straight to the bridge. All others go to the parser, which handles each
 * packet as soon as it is whole, so that packets keep their order.
 */
export class FastPath {
  readonly #client: Client
  readonly #bridge: Bridge
  readonly #router: Router
  readonly #parse: (chunk: Buffer) => number
  /** Bytes that the parser still needs of its current packet. */
  #missing = 0

  constructor(client: Client, bridge: Bridge, router: Router) {
    this.#client = client
    this.#bridge = bridge
    this.#router = router
    this.#parse = client._parser.parse.bind(client._parser)
  }

  /** `Connection` passes on whole fixed headers only. Throws as the parser does. */
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
        // The parser may keep an incomplete packet for long: it must not keep a larger buffer with it.
        const isPart = end > chunk.length && chunk.length - at < chunk.buffer.byteLength
        this.#parse(isPart ? ownCopy(chunk.subarray(at)) : chunk.subarray(at, end))
        this.#missing = Math.max(0, end - chunk.length)
      }
      at = end
    }
    if (taken > 0) client._keepaliveTimer?.refresh()
    if (taken + parsed > 0) client.conn.published(taken, parsed)
  }

  /** Takes the packet from `at` to `end`, whose header was read; false when it must go through aedes. */
  #take(chunk: Buffer, at: number, end: number): boolean {
    const { type, qos, bytes, length } = header
    const { conn, session, connackSent } = this.#client
    if (type !== PUBLISH || qos > 1 || ((chunk[at] as number) & RETAIN) !== 0 || !connackSent) return false
    // Through aedes a client that does not read its acks is not read itself.
    if (session === undefined || conn.clogged || this.#router.routesTelemetry) return false
    const topic = at + bytes + 2
    const topicEnd = topic + word(chunk, topic - 2)
    const name = chunk.toString('utf8', topic, topicEnd)
    const route = routeOf(name)
    if (route.reason !== undefined || !isPlain(route.metric)) return false
    if (!session.principal.mayPublish(name, route.deviceId)) return false
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

/** aedes closes a connection that publishes to a wildcard, and the bridge one with ill-formed text. */
function isPlain(metric: string | undefined): boolean {
  return metric === undefined || !(/[+#]/.test(metric) || isIllFormed(metric))
}
