import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import { responseOn } from './wire.ts'

/** The connections of a server, so that its close waits for answers, for all of them, and for nothing else. */
export class Connections {
  readonly #server: Server
  readonly #open = new Set<Socket>()
  readonly #closeQuiet: () => void

  constructor(server: Server) {
    this.#server = server
    this.#closeQuiet = server.closeIdleConnections.bind(server)
    // `close` calls it, once nobody can connect any more.
    server.closeIdleConnections = this.#closeIdle
    server.on('connection', (socket) => {
      this.#open.add(socket)
      socket.once('close', () => this.#open.delete(socket))
    })
  }

  /** From now on each ends with its answer: whoever goes on asking is to ask on a new one, which a balancer gives to another process. */
  keepNone(): void {
    for (const socket of this.#open) {
      const response = responseOn(socket)
      if (response !== undefined) response.shouldKeepAlive = false
    }
    this.#server.prependListener('request', (_request, response) => {
      response.shouldKeepAlive = false
    })
  }

  /**
   * Node takes a connection for idle whose answer is complete here and has not left yet, and cuts it; not one on which no
   * byte has come, such as browsers make ahead of their requests. So it is asked when no answer is under way.
   */
  readonly #closeIdle = (): void => {
    for (const socket of this.#open) {
      const response = responseOn(socket)
      if (response !== undefined) return void response.once('close', this.#closeIdle)
    }
    this.#closeQuiet()
    for (const socket of this.#open) if (socket.bytesRead === 0) socket.destroy()
  }
}
