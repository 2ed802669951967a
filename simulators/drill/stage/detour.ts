import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

const HOST = '127.0.0.1'

/**
 * The network between one process and Kafka. Cut, it carries nothing and closes nothing, as a network does: bytes wait,
 * and new connections are taken but lead nowhere, until it heals.
 */
export class Detour implements AsyncDisposable {
  readonly port: number
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #cut = false

  private constructor(server: Server, target: () => number) {
    this.#server = server
    this.port = (server.address() as { port: number }).port
    server.on('connection', (near) => this.#join(near, connect(target(), HOST)))
  }

  /** `target`: the port at the other end, asked for at each connection. */
  static async open(target: () => number): Promise<Detour> {
    const server = createServer().listen(0, HOST)
    await once(server, 'listening')
    return new Detour(server, target)
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
