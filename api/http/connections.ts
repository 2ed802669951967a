import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { finished } from 'node:stream'
import { Server as TlsServer } from 'node:tls'
import { ProblemError } from './problem.ts'
import { responseOn } from './wire.ts'

/** Tracks the connections of a server, so that its close waits for all answers under way and for nothing else. */
export class Connections {
  readonly #server: Server
  readonly #open = new Set<Socket>()
  /** Response to the newest request on a connection. Pipelined requests may have more than one answer due. */
  readonly #newest = new WeakMap<Socket, ServerResponse>()
  readonly #closeQuiet: () => void

  constructor(server: Server) {
    this.#server = server
    this.#closeQuiet = server.closeIdleConnections.bind(server)
    server.closeIdleConnections = this.#closeIdle
    // Below TLS there is another socket, which carries no request.
    server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
      this.#open.add(socket)
      socket.once('close', () => this.#open.delete(socket))
    })
    server.prependListener('request', (request, response) => this.#newest.set(request.socket, response))
  }

  /**
   * Ends each connection with its last answer. The client's next request opens a new one, which a balancer gives to
   * another process.
   */
  keepNone(): void {
    for (const socket of this.#open) {
      const response = this.#newest.get(socket)
      if (response === undefined) continue
      response.shouldKeepAlive = false
      // Node decides this with the headers and has no public name for it. Its own handler of a client's end does the
      // same.
      if (response.headersSent) (response as unknown as { _last: boolean })._last = true
    }
    this.#server.prependListener('request', (_request, response) => {
      response.shouldKeepAlive = false
    })
  }

  /**
   * Node cuts a connection as idle when its answer is complete here but has not left yet, so such an answer is kept
   * unfinished meanwhile. Node does not count a connection on which no byte has come, as browsers make ahead of
   * requests.
   */
  readonly #closeIdle = (): void => {
    const leaving: ServerResponse[] = []
    for (const socket of this.#open) {
      const response = responseOn(socket)
      if (response?.finished) leaving.push(response)
    }
    for (const response of leaving) response.finished = false
    this.#closeQuiet()
    for (const response of leaving) response.finished = true
    for (const socket of this.#open) if (socket.bytesRead === 0) socket.destroy()
  }
}

/** Answers of fewer bytes need not be counted: there are at most as many as connections. */
export const SMALL_ANSWER_BYTES = 64 * 1024

/**
 * Counts the bytes of answers that clients have not taken. A read ends long before a slow client has its answer, which
 * waits here until then or until the connection was idle for too long.
 */
export class UnsentAnswers {
  readonly #maxBytes: number
  #bytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Called before an answer is made. Throws ProblemError `overloaded` when there is no room. */
  admit(): void {
    if (this.#bytes >= this.#maxBytes) throw this.#full()
  }

  /** Counts an answer until `response` is handed to the system or lost. Throws like `admit`. */
  hold(bytes: number, response: ServerResponse): void {
    if (this.#bytes > 0 && this.#bytes + bytes > this.#maxBytes) throw this.#full()
    this.#bytes += bytes
    finished(response, () => {
      this.#bytes -= bytes
    })
  }

  #full(): ProblemError {
    return ProblemError.overloaded(`answers of ${this.#bytes} bytes wait for their clients to read them`)
  }
}
