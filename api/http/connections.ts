import type { Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { finished } from 'node:stream'
import { ProblemError } from './problem.ts'
import { responseOn } from './wire.ts'

/** The connections of a server, so that its close waits for answers, for all of them, and for nothing else. */
export class Connections {
  readonly #server: Server
  readonly #open = new Set<Socket>()
  /** To the request that came last on a connection: of pipelined ones more than one answer may be due. */
  readonly #newest = new WeakMap<Socket, ServerResponse>()
  readonly #closeQuiet: () => void

  constructor(server: Server) {
    this.#server = server
    this.#closeQuiet = server.closeIdleConnections.bind(server)
    // `close` calls it.
    server.closeIdleConnections = this.#closeIdle
    server.on('connection', (socket) => {
      this.#open.add(socket)
      socket.once('close', () => this.#open.delete(socket))
    })
    server.prependListener('request', (request, response) => this.#newest.set(request.socket, response))
  }

  /** From now on each ends with its last answer: whoever goes on asking is to ask on a new one, which a balancer gives to another process. */
  keepNone(): void {
    for (const socket of this.#open) {
      const response = this.#newest.get(socket)
      if (response === undefined) continue
      response.shouldKeepAlive = false
      // Node decides it with the headers, and has no public name for it: its own handler of a client's end does the same.
      if (response.headersSent) (response as unknown as { _last: boolean })._last = true
    }
    this.#server.prependListener('request', (_request, response) => {
      response.shouldKeepAlive = false
    })
  }

  /**
   * Node takes a connection for idle whose answer is complete here and has not left yet, and cuts it: such an answer is not
   * finished to it meanwhile. One on which no byte has come, such as browsers make ahead of their requests, is none to it.
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

/** Answers of fewer bytes, to which there are as many as connections, may go uncounted. */
export const SMALL_ANSWER_BYTES = 64 * 1024

/**
 * Counts the bytes of answers that clients have not taken: a read is over long before a client that does not read has its
 * answer, which waits here until then, or until its connection has been idle for too long.
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

  /** Before an answer is made. Throws ProblemError `overloaded` when there is no room for any. */
  admit(): void {
    if (this.#bytes >= this.#maxBytes) throw this.#full()
  }

  /** Counts an answer until `response` has been handed to the system, or cannot be any more. Throws as `admit` when it is too much. */
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
