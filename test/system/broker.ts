import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { Aedes } from 'aedes'

export interface Received {
  readonly clientId: string
  readonly topic: string
  readonly payload: string
}

/** A broker of its own that keeps what it is sent, for tests of what sends. */
export class RecordingBroker implements AsyncDisposable {
  readonly received: Received[] = []
  readonly port: number
  readonly #broker: Aedes
  readonly #server: ReturnType<typeof createServer>
  readonly #sockets = new Set<Socket>()

  private constructor(broker: Aedes, server: ReturnType<typeof createServer>) {
    this.#broker = broker
    this.#server = server
    this.port = (server.address() as AddressInfo).port
    server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
    })
    broker.authorizePublish = (client, packet, callback) => {
      const { topic, payload } = packet
      if (client !== null) this.received.push({ clientId: client.id, topic, payload: payload.toString() })
      callback(null)
    }
  }

  static async open(): Promise<RecordingBroker> {
    const broker = await Aedes.createBroker()
    const server = createServer(broker.handle).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new RecordingBroker(broker, server)
  }

  /** Closes every connection, as a broker that restarts does. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut()
    if (this.#server.listening) await once(this.#server.close(), 'close')
    await new Promise<void>((resolve) => this.#broker.close(() => resolve()))
  }
}
