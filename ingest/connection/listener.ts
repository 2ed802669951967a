import { once } from 'node:events'
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import {
  createServer as createTlsServer,
  type SecureContextOptions,
  TLSSocket,
  type Server as TlsServer,
} from 'node:tls'
import type { Logger } from 'pino'
import { WebSocketServer } from 'ws'
import { portUnavailable } from '../../processor/contract/errors.ts'
import type { Audit } from '../../processor/runtime/audit.ts'
import { watchTls } from '../../processor/runtime/tls.ts'
import type { WatchedFiles } from '../../processor/runtime/watched-files.ts'
import type { MqttAccess } from '../identity/access.ts'
import { Bucket } from '../identity/accounts.ts'
import { certificateOf } from '../identity/certificates.ts'
import type { Peer } from '../identity/guard.ts'
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

/** Handshakes that begin in one turn of the event loop: each takes the processor for about a millisecond. */
const HANDSHAKES_PER_TURN = 4

/** Seconds of attempts that an address may make at once. */
const ATTEMPTS_AT_ONCE_SECONDS = 10
/** Addresses whose attempts are counted. At the bound the one that came least lately is forgotten. */
const MAX_ADDRESSES = 50_000

interface Place {
  readonly host: string
  readonly port: number
  readonly variable: string
}

export interface ListenerOptions {
  readonly broker: Broker
  readonly access: Pick<MqttAccess, 'host' | 'port' | 'tls' | 'ways' | 'names' | 'origins'>
  readonly limits: Limits
  readonly metrics: IngestMetrics
  readonly audit: Audit
  readonly logger: Logger
}

/** A port without TLS, a port with it, or both; each for MQTT over TCP and over WebSocket (any path). */
export class Listener {
  readonly #options: ListenerOptions
  readonly #servers: Server[] = []
  readonly #http: HttpServer
  readonly #webSockets: WebSocketServer
  readonly #handshakes: Handshakes | undefined
  readonly #tlsFiles: WatchedFiles<SecureContextOptions> | undefined
  /** Sockets that are open, those in a handshake included. */
  #open = 0
  readonly #addresses: Addresses
  /** Open sockets, each with the timer that closes it unless it begins to speak MQTT. */
  readonly #silent = new Map<Duplex, NodeJS.Timeout>()
  address = ''
  /** 0: MQTT without TLS is not served. */
  port = 0
  tlsPort: number | undefined

  private constructor(options: ListenerOptions, tlsFiles: WatchedFiles<SecureContextOptions> | undefined) {
    this.#options = options
    this.#addresses = new Addresses(options.limits)
    const { access, broker, limits, metrics } = options
    this.#tlsFiles = tlsFiles
    if (tlsFiles !== undefined) this.#handshakes = this.#openTls(tlsFiles)
    this.#http = createHttpServer((_request, response) => {
      response.writeHead(426, { 'content-type': 'text/plain', connection: 'upgrade, close', upgrade: 'websocket' })
      response.end('This port speaks MQTT, over TCP or WebSocket.\n')
    })
    const webSocketOptions = {
      noServer: true,
      perMessageDeflate: false,
      maxPayload: limits.maxPacketBytes * PACKETS_PER_MESSAGE,
      maxFragments: MAX_FRAMES,
      // Missing in its types.
      closeTimeout: CLOSE_MS,
      handleProtocols: (offered: Set<string>) => SUBPROTOCOLS.find((name) => offered.has(name)) ?? false,
    }
    this.#webSockets = new WebSocketServer(webSocketOptions)
    this.#http.on('upgrade', (request, socket, head) => {
      const { origin } = request.headers
      // A browser lets any page open a WebSocket, also to addresses that only its user reaches (RFC 6455 section 10.2).
      if (origin !== undefined && !access.origins.includes(origin)) {
        metrics.refusals.add('foreign origin')
        socket.end('HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\nMQTT_ORIGINS does not name this origin.\n')
        return
      }
      const offered = request.headers['sec-websocket-protocol']?.split(',').map((name) => name.trim()) ?? []
      if (!SUBPROTOCOLS.some((name) => offered.includes(name))) {
        socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nThe WebSocket subprotocol must be mqtt.\n')
        return
      }
      clearTimeout(this.#silent.get(socket))
      this.#webSockets.handleUpgrade(request, socket, head, (webSocket) => {
        const stream = new WebSocketStream(webSocket, socket, broker.incomplete, () => connection.giveUp())
        const connection = broker.handle(stream, this.#peerOf(socket))
      })
    })
  }

  /** Rejects with ConfigurationError when an address cannot be bound, or the files of TLS cannot be used. */
  static async open(options: ListenerOptions): Promise<Listener> {
    const { access, logger } = options
    const { host, port, tls } = access
    const listener = new Listener(options, tls && (await watchTls(tls, logger)))
    try {
      if (port !== undefined) {
        const bound = await listener.#listen({ host, port, variable: 'MQTT_PORT' }, (socket) =>
          listener.#accept(socket),
        )
        listener.address = bound.address
        listener.port = bound.port
      }
      const handshakes = listener.#handshakes
      if (tls !== undefined && handshakes !== undefined) {
        const place = { host, port: tls.port, variable: 'MQTT_TLS_PORT' }
        const bound = await listener.#listen(place, (socket) => handshakes.add(socket))
        listener.address = bound.address
        listener.tlsPort = bound.port
      }
      return listener
    } catch (error) {
      listener.stop()
      listener.close()
      throw error
    }
  }

  async #listen(place: Place, accept: (socket: Socket) => void): Promise<AddressInfo> {
    const { metrics, limits } = this.#options
    const server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: TCP_KEEPALIVE_MS })
    server.on('connection', (socket) => {
      if (this.#open >= limits.maxConnections) {
        metrics.refusals.add('too many connections')
        socket.destroy()
        return
      }
      const { remoteAddress = 'unknown' } = socket
      const fault = this.#addresses.open(remoteAddress)
      if (fault !== undefined) {
        metrics.refusals.add(fault)
        socket.destroy()
        return
      }
      this.#open++
      socket.on('close', () => {
        this.#open--
        this.#addresses.close(remoteAddress)
      })
      // 'close' follows.
      socket.on('error', () => undefined)
      accept(socket)
    })
    server.listen({ host: place.host, port: place.port, backlog: BACKLOG })
    try {
      await once(server, 'listening')
    } catch (error) {
      throw portUnavailable('MQTT', place, error)
    }
    this.#servers.push(server)
    return server.address() as AddressInfo
  }

  #openTls(files: WatchedFiles<SecureContextOptions>): Handshakes {
    const { access, limits, metrics, audit, logger } = this.#options
    const { ways, tls } = access
    const server = createTlsServer({
      ...files.value,
      handshakeTimeout: limits.connectTimeoutMs,
      requestCert: tls?.ca !== undefined,
      // Where there are other ways, a client without a certificate shows its password next.
      rejectUnauthorized: ways.has('tls') && ways.size === 1,
    })
    files.onChange = (value) => server.setSecureContext(value)
    server.on('secureConnection', (socket) => this.#accept(socket))
    server.on('tlsClientError', (error, socket) => {
      metrics.refusals.add('handshake failed')
      audit('refuse', { address: socket.remoteAddress, reason: `TLS: ${error.message}` })
      logger.debug({ address: socket.remoteAddress, reason: error.message }, 'a TLS handshake failed')
      socket.destroy()
    })
    return new Handshakes(server, limits)
  }

  #peerOf(socket: Duplex): Peer {
    const { names } = this.#options.access
    const { remoteAddress = 'unknown' } = socket as Socket
    return {
      address: remoteAddress.replace(/^::ffff:/, ''),
      certificate: socket instanceof TLSSocket ? certificateOf(socket, names) : undefined,
    }
  }

  /** Accepts no more connections; open ones go on. */
  stop(): void {
    for (const server of this.#servers) server.close()
  }

  close(): void {
    this.#http.closeAllConnections()
    this.#webSockets.close()
    for (const socket of this.#silent.keys()) socket.destroy()
    this.#handshakes?.close()
    this.#tlsFiles?.[Symbol.dispose]()
  }

  #accept(socket: Socket): void {
    const { broker, limits } = this.#options
    const silent = setTimeout(() => socket.destroy(), limits.connectTimeoutMs)
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
        broker.handle(socket, this.#peerOf(socket), first)
      }
    }
    socket.on('readable', peek)
  }
}

/** Bounds the connections of each address, so that one leaves room for others. */
class Addresses {
  readonly #limits: Limits
  readonly #open = new Map<string, number>()
  /** In the order of the last attempt. */
  readonly #attempts = new Map<string, Bucket>()

  constructor(limits: Limits) {
    this.#limits = limits
  }

  /** Tells why a connection is refused. */
  open(address: string): 'too many connections of one address' | 'too many attempts of one address' | undefined {
    const { maxConnectionsPerAddress, maxAttemptsPerAddress } = this.#limits
    const open = this.#open.get(address) ?? 0
    if (open >= maxConnectionsPerAddress) return 'too many connections of one address'
    const attempts =
      this.#attempts.get(address) ?? new Bucket(maxAttemptsPerAddress, maxAttemptsPerAddress * ATTEMPTS_AT_ONCE_SECONDS)
    this.#attempts.delete(address)
    this.#attempts.set(address, attempts)
    const [oldest] = this.#attempts.keys()
    if (this.#attempts.size > MAX_ADDRESSES && oldest !== undefined) this.#attempts.delete(oldest)
    if (attempts.waitMs() > 0) return 'too many attempts of one address'
    attempts.take()
    this.#open.set(address, open + 1)
    return undefined
  }

  close(address: string): void {
    const open = (this.#open.get(address) ?? 0) - 1
    if (open > 0) this.#open.set(address, open)
    else this.#open.delete(address)
  }
}

/** Lets sockets into the TLS server, a few in each turn and so many at once. They wait in the order in which they came. */
class Handshakes {
  readonly #server: TlsServer
  readonly #limits: Limits
  readonly #waiting = new Map<Socket, NodeJS.Timeout>()
  /** Sockets in a handshake, by the other end: the socket below a TLS socket has no public name. */
  readonly #underWay = new Map<string, Socket>()
  #scheduled = false

  constructor(server: TlsServer, limits: Limits) {
    this.#server = server
    this.#limits = limits
    server.on('secureConnection', (socket) => this.#ended(otherEnd(socket)))
  }

  add(socket: Socket): void {
    const timer = setTimeout(() => socket.destroy(), this.#limits.connectTimeoutMs)
    this.#waiting.set(socket, timer)
    const end = otherEnd(socket)
    socket.on('close', () => {
      clearTimeout(timer)
      this.#waiting.delete(socket)
      if (this.#underWay.get(end) === socket) this.#ended(end)
    })
    this.#schedule()
  }

  close(): void {
    for (const socket of [...this.#waiting.keys(), ...this.#underWay.values()]) socket.destroy()
  }

  #ended(end: string): void {
    this.#underWay.delete(end)
    this.#schedule()
  }

  #schedule(): void {
    const mayBegin = this.#waiting.size > 0 && this.#underWay.size < this.#limits.maxHandshakes
    if (!mayBegin || this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => this.#begin())
  }

  #begin(): void {
    this.#scheduled = false
    let room = Math.min(HANDSHAKES_PER_TURN, this.#limits.maxHandshakes - this.#underWay.size)
    for (const [socket, timer] of this.#waiting) {
      if (room-- === 0) break
      clearTimeout(timer)
      this.#waiting.delete(socket)
      this.#underWay.set(otherEnd(socket), socket)
      this.#server.emit('connection', socket)
    }
    this.#schedule()
  }
}

function otherEnd({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`
}
