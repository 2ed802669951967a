import { once } from 'node:events'
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocketServer } from 'ws'
import { portUnavailable } from '../../processor/contract/errors.ts'
import type { Limits } from '../limits.ts'
import type { IngestMetrics } from '../metrics.ts'
import type { Broker } from '../mqtt/broker.ts'
import { WebSocketStream } from './web-socket.ts'

/** `G` of GET: no MQTT connection begins with it, its first packet being CONNECT (0x10). */
const HTTP_FIRST_BYTE = 0x47
/** Subprotocols of MQTT 3.1.1 (section 6) and 3.1. */
const SUBPROTOCOLS = ['mqtt', 'mqttv3.1']
/** The longest WebSocket message, in MQTT packets of the largest size. */
const PACKETS_PER_MESSAGE = 4
/** Frames of one WebSocket message; libraries that send in pieces send 4 KiB each. */
const MAX_FRAMES = 1_024
/** How long a peer may take to answer a close frame, ms; an incomplete message stays in memory until then. */
const CLOSE_MS = 1_000
/** Silent peers are probed after this many ms: a client may have no keepalive of its own. */
const TCP_KEEPALIVE_MS = 60_000
const BACKLOG = 4_096

/** One port for MQTT over TCP and over WebSocket (any path). */
export class Listener {
  readonly #server: Server
  readonly #http: HttpServer
  readonly #webSockets: WebSocketServer
  readonly #broker: Broker
  readonly #limits: Limits
  /** Open sockets, each with the timer that closes it unless it begins to speak MQTT. */
  readonly #silent = new Map<Duplex, NodeJS.Timeout>()

  private constructor(broker: Broker, limits: Limits, metrics: IngestMetrics) {
    this.#broker = broker
    this.#limits = limits
    this.#server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: TCP_KEEPALIVE_MS })
    this.#server.maxConnections = limits.maxConnections
    this.#server.on('connection', (socket) => this.#accept(socket))
    this.#server.on('drop', () => metrics.refusals.add('too many connections'))
    this.#http = createHttpServer((_request, response) => {
      response.writeHead(426, { 'content-type': 'text/plain', connection: 'upgrade, close', upgrade: 'websocket' })
      response.end('This port speaks MQTT, over TCP or WebSocket.\n')
    })
    const options = {
      noServer: true,
      perMessageDeflate: false,
      maxPayload: limits.maxPacketBytes * PACKETS_PER_MESSAGE,
      maxFragments: MAX_FRAMES,
      // Missing in its types.
      closeTimeout: CLOSE_MS,
      handleProtocols: (offered: Set<string>) => SUBPROTOCOLS.find((name) => offered.has(name)) ?? false,
    }
    this.#webSockets = new WebSocketServer(options)
    this.#http.on('upgrade', (request, socket, head) => {
      const offered = request.headers['sec-websocket-protocol']?.split(',').map((name) => name.trim()) ?? []
      if (!SUBPROTOCOLS.some((name) => offered.includes(name))) {
        socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nThe WebSocket subprotocol must be mqtt.\n')
        return
      }
      clearTimeout(this.#silent.get(socket))
      this.#webSockets.handleUpgrade(request, socket, head, (webSocket) => {
        const stream = new WebSocketStream(webSocket, socket, this.#broker.incomplete, () => connection.giveUp())
        const connection = this.#broker.handle(stream)
      })
    })
  }

  /** Rejects with ConfigurationError PORT_UNAVAILABLE when the address cannot be bound. */
  static async open(
    broker: Broker,
    host: string,
    port: number,
    limits: Limits,
    metrics: IngestMetrics,
  ): Promise<Listener> {
    const listener = new Listener(broker, limits, metrics)
    const server = listener.#server
    server.listen({ host, port, backlog: BACKLOG })
    try {
      await once(server, 'listening')
    } catch (error) {
      throw portUnavailable('MQTT', { host, port, variable: 'MQTT_PORT' }, error)
    }
    return listener
  }

  get address(): AddressInfo {
    return this.#server.address() as AddressInfo
  }

  /** Accepts no more connections; open ones go on. */
  stop(): void {
    this.#server.close()
  }

  close(): void {
    this.#http.closeAllConnections()
    this.#webSockets.close()
    for (const socket of this.#silent.keys()) socket.destroy()
  }

  #accept(socket: Socket): void {
    const silent = setTimeout(() => socket.destroy(), this.#limits.connectTimeoutMs)
    this.#silent.set(socket, silent)
    // 'close' follows.
    socket.on('error', () => undefined)
    socket.on('close', () => {
      clearTimeout(silent)
      this.#silent.delete(socket)
    })
    const peek = (): void => {
      const first: Buffer | null = socket.read()
      if (first === null) return
      socket.off('readable', peek)
      if (first[0] === HTTP_FIRST_BYTE) {
        socket.unshift(first)
        this.#http.emit('connection', socket)
      } else {
        clearTimeout(silent)
        this.#broker.handle(socket, first)
      }
    }
    socket.on('readable', peek)
  }
}
