import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { pause } from '../../processor/runtime/pause.ts'

const HOST = '127.0.0.1'
/** What one connection sends before the next has its turn, bytes. */
const SLICE_BYTES = 4096

/** A way to Kafka that carries what is sent slowly, all connections in turn, and what comes back at once. */
export class SlowUplink implements AsyncDisposable {
  readonly port: number
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  readonly #bytesPerSecond: number
  /** Resolves when what has been given to the way before is through. */
  #way = Promise.resolve()

  private constructor(server: Server, target: number, bytesPerSecond: number) {
    this.#server = server
    this.port = (server.address() as { port: number }).port
    this.#bytesPerSecond = bytesPerSecond
    server.on('connection', (near) => this.#join(near, connect(target, HOST)))
  }

  static async open(target: number, bytesPerSecond: number): Promise<SlowUplink> {
    const server = createServer({ noDelay: true }).listen(0, HOST)
    await once(server, 'listening')
    return new SlowUplink(server, target, bytesPerSecond)
  }

  #join(near: Socket, far: Socket): void {
    for (const socket of [near, far]) {
      this.#sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        this.#sockets.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
    far.setNoDelay(true)
    far.pipe(near)
    near.on('data', (bytes) => {
      near.pause()
      void this.#carry(bytes, far).then(() => near.resume())
    })
  }

  async #carry(bytes: Buffer, far: Socket): Promise<void> {
    for (let at = 0; at < bytes.length && !far.destroyed; at += SLICE_BYTES) {
      const slice = bytes.subarray(at, at + SLICE_BYTES)
      this.#way = this.#way.then(() => pause((1000 * slice.length) / this.#bytesPerSecond))
      await this.#way
      if (far.writable) far.write(slice)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await once(this.#server.close(), 'close')
  }
}
