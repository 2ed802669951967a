import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { hostname } from 'node:os'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { addressOf } from '../contract/address.ts'
import { portUnavailable, reasonOf } from '../contract/errors.ts'
import { within } from './pause.ts'

/** An import would evaluate all exports, WebSocket included: a fifth of the time until a processor listens. */
const { createServer } = process.getBuiltinModule('node:http')

/** Milliseconds from the first byte of a request to its last; then it gets 408, and the connection is closed. */
const REQUEST_TIMEOUT_MS = 10_000
/** Milliseconds until an idle connection is closed. Readers close theirs sooner, so none sends into a closing one. */
export const KEEP_ALIVE_MS = 60_000
/** Connections beyond this are closed at once. A reader has up to 128, so 16 readers fit. */
const MAX_CONNECTIONS = 2_048
/** Bounds request line and headers; longer ones get 431. */
const MAX_HEADER_BYTES = 8 * 1024
/** Milliseconds that the checks may take; after that the process is not ready. */
export const CHECKS_WITHIN_MS = 2_000

/** Returns false for a path that it does not know. It never rejects. */
export type Handler = (request: IncomingMessage, response: ServerResponse, path: string) => boolean

export interface EndpointOptions {
  readonly host: string
  /** 0 takes any free port. */
  readonly port: number
  /** The error names this variable when the port is taken. */
  readonly variable: 'QUERY_PORT' | 'HEALTH_PORT'
  /** Resolves with the problems that make the process not ready. */
  readonly checks: () => Promise<readonly string[]>
  readonly registry: Registry
  readonly logger: Logger
  /** Name of the processor that /livez tells. */
  readonly instance?: string
  /** Answers the paths beside /livez, /readyz and /metrics. */
  readonly handler?: Handler
  /** Milliseconds that a close waits for requests under way before it cuts their connections. Default 2,000. */
  readonly drainMs?: number
}

/** The HTTP endpoint of a process without the API. */
export class Endpoint implements AsyncDisposable {
  /** host:port for other hosts. A server that listens on all addresses gives the name of this host. */
  readonly address: string
  readonly #options: EndpointOptions
  readonly #server: Server
  readonly #connections = new Set<Socket>()
  #closed: Promise<void> | undefined

  private constructor(options: EndpointOptions, server: Server) {
    const { host } = options
    const everywhere = host === '0.0.0.0' || host === '::'
    const { port } = server.address() as AddressInfo
    this.address = addressOf({ host: everywhere ? hostname() : host, port })
    this.#options = options
    this.#server = server
    server.on('request', (request, response) => this.#answer(request, response))
    server.on('connection', (socket) => {
      this.#connections.add(socket)
      socket.once('close', () => this.#connections.delete(socket))
    })
  }

  /** Rejects with ConfigurationError PORT_UNAVAILABLE when the address cannot be listened on. */
  static async open(options: EndpointOptions): Promise<Endpoint> {
    const server = createServer({
      requestTimeout: REQUEST_TIMEOUT_MS,
      headersTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      maxHeaderSize: MAX_HEADER_BYTES,
    })
    server.maxConnections = MAX_CONNECTIONS
    const { host, port } = options
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(portUnavailable('the endpoint', options, error)))
      server.listen({ host, port }, resolve)
    })
    const endpoint = new Endpoint(options, server)
    options.logger.info({ endpoint: endpoint.address }, 'the endpoint is listening')
    return endpoint
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { url = '' } = request
    const mark = url.indexOf('?')
    const path = mark < 0 ? url : url.slice(0, mark)
    if (request.method === 'GET' || request.method === 'HEAD') {
      if (path === '/livez')
        return reply(response, 200, JSON.stringify({ status: 'alive', instance: this.#options.instance }))
      if (path === '/readyz') return void this.#ready(response)
      if (path === '/metrics') return void this.#metrics(response)
    }
    if (this.#options.handler?.(request, response, path) !== true) reply(response, 404, '{"message":"unknown route"}')
  }

  /** Never rejects: a failed check counts as a problem of the process. */
  async #ready(response: ServerResponse): Promise<void> {
    const checked = this.#options.checks().catch((error: unknown) => [`a check failed: ${reasonOf(error)}`])
    const late = [`the checks took longer than ${CHECKS_WITHIN_MS} ms`]
    const problems = await within(checked, CHECKS_WITHIN_MS, () => late)
    if (this.#closed !== undefined) return reply(response, 503, NOT_READY(['the process is shutting down']))
    if (problems.length === 0) reply(response, 200, '{"status":"ready"}')
    else reply(response, 503, NOT_READY(problems))
  }

  /** Never rejects. */
  async #metrics(response: ServerResponse): Promise<void> {
    const { registry, logger } = this.#options
    try {
      reply(response, 200, await registry.metrics(), registry.contentType)
    } catch (error) {
      logger.error({ err: error }, 'the metrics cannot be given')
      reply(response, 500, '{"message":"the metrics cannot be given"}')
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const cut = setTimeout(() => this.#server.closeAllConnections(), this.#options.drainMs ?? 2_000)
    const closed = new Promise((resolve) => this.#server.close(resolve))
    // Node closes idle connections only. It takes one that has sent nothing for busy, and would keep one that gets its
    // last answer now.
    for (const socket of this.#connections) if (socket.bytesRead === 0) socket.destroy()
    this.#server.keepAliveTimeout = 1
    this.#server.keepAliveTimeoutBuffer = 0
    await closed
    clearTimeout(cut)
  }
}

const NOT_READY = (problems: readonly string[]): string => JSON.stringify({ status: 'not ready', problems })

export function reply(response: ServerResponse, status: number, body: string, type = 'application/json'): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) })
  response.end(body)
}
