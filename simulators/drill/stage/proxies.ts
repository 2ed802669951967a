import { once } from 'node:events'
import {
  Agent,
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request,
  type Server,
  type ServerResponse,
} from 'node:http'
import { connect, createServer as createTcpServer, type Socket, type Server as TcpServer } from 'node:net'

const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding'])
const HOST = '127.0.0.1'
/** Largest body of a request; the drill asks for at most 1,000 devices at once. */
const MAX_BODY_BYTES = 256 * 1024

/**
 * Sends HTTP requests to several API processes in turn. The requests of a drill change nothing, so one whose connection
 * breaks goes to the next process; the answer is 502 only when all have failed.
 */
export class Balancer implements AsyncDisposable {
  readonly port: number
  readonly #server: Server
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 })
  readonly #targets: readonly number[]
  #turn = 0

  private constructor(server: Server, targets: readonly number[]) {
    this.#server = server
    this.#targets = targets
    this.port = (server.address() as { port: number }).port
    server.on('request', (incoming: IncomingMessage, response: ServerResponse) => {
      this.#serve(incoming, response).catch((error: unknown) => response.destroy(error as Error))
    })
  }

  /** `targets`: ports of the API processes, up or down. */
  static async open(targets: readonly number[]): Promise<Balancer> {
    const server = createServer().listen(0, HOST)
    await once(server, 'listening')
    return new Balancer(server, targets)
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    let bytes = 0
    for await (const chunk of incoming as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > MAX_BODY_BYTES) return void response.writeHead(413).end()
      chunks.push(chunk)
    }
    const body = Buffer.concat(chunks)
    const first = this.#turn++
    for (let i = 0; i < this.#targets.length; i++) {
      const port = this.#targets[(first + i) % this.#targets.length] as number
      const answer = await this.#ask(port, incoming, body)
      if (answer === undefined) continue
      response.writeHead(answer.status, { ...answer.headers, 'content-length': answer.body.length })
      return void response.end(answer.body)
    }
    response.writeHead(502).end()
  }

  /** Undefined when the connection could not be made, or broke. */
  #ask(port: number, { method, url, headers }: IncomingMessage, body: Buffer): Promise<Answer | undefined> {
    return new Promise((resolve) => {
      const outgoing = request({ agent: this.#agent, host: HOST, port, method, path: url, headers })
      outgoing.on('error', () => resolve(undefined))
      outgoing.on('response', (answer) => {
        const chunks: Buffer[] = []
        answer.on('data', (chunk: Buffer) => chunks.push(chunk))
        answer.on('error', () => resolve(undefined))
        answer.on('end', () => {
          resolve({ status: answer.statusCode ?? 502, headers: endToEnd(answer.headers), body: Buffer.concat(chunks) })
        })
      })
      outgoing.end(body)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy()
    this.#server.closeAllConnections()
    if (this.#server.listening) await once(this.#server.close(), 'close')
  }
}

/** The headers without those that concern one connection only (RFC 9110, 7.6.1). */
function endToEnd(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name)))
}

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/**
 * The network between one process and Kafka. Cut, it carries nothing and closes nothing, as a network does: bytes wait,
 * and new connections are accepted but lead nowhere, until it heals.
 */
export class TcpProxy implements AsyncDisposable {
  readonly port: number
  readonly #server: TcpServer
  readonly #sockets = new Set<Socket>()
  #cut = false

  private constructor(server: TcpServer, target: number) {
    this.#server = server
    this.port = (server.address() as { port: number }).port
    server.on('connection', (near) => this.#join(near, connect(target, HOST)))
  }

  /** `target`: the port at the other end. */
  static async open(target: number): Promise<TcpProxy> {
    const server = createTcpServer().listen(0, HOST)
    await once(server, 'listening')
    return new TcpProxy(server, target)
  }

  cut(): void {
    this.#cut = true
    for (const socket of this.#sockets) socket.pause()
  }

  heal(): void {
    this.#cut = false
    for (const socket of this.#sockets) socket.resume()
  }

  #join(near: Socket, far: Socket): void {
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(from)
      from.setNoDelay(true)
      from.pipe(to)
      // `pipe` resumes what it reads from, now and whenever the other side drains.
      to.on('drain', () => this.#cut && from.pause())
      // The close that follows ends the other side too.
      from.on('error', () => undefined)
      from.on('close', () => {
        this.#sockets.delete(from)
        to.destroy()
      })
    }
    if (this.#cut) for (const socket of [near, far]) socket.pause()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    if (this.#server.listening) await once(this.#server.close(), 'close')
  }
}
