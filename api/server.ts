import { lookup } from 'node:dns/promises'
import type { AddressInfo } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { addressOf } from '../processor/contract/address.ts'
import { portUnavailable } from '../processor/contract/errors.ts'
import { type Api, type AppOptions, buildApp } from './app.ts'
import { Connections } from './http/connections.ts'

export interface ServerOptions extends AppOptions {
  readonly host: string
  /** The variable that sets the host, for messages. Default HOST. */
  readonly hostVariable?: string
  /** 0: any free port. */
  readonly port: number
  /**
   * What a close awaits while /readyz already fails and everything is still served, so that balancers look elsewhere.
   */
  readonly notice?: () => Promise<unknown>
  /** How long a close waits for requests under way, ms; then it cuts their connections. Default 10,000. */
  readonly drainMs?: number
}

/** The HTTP application on a socket. Its close fails readiness, ends requests under way, and closes connections. */
export class ApiServer implements AsyncDisposable {
  readonly port: number
  readonly #app: Api
  readonly #connections: Connections
  readonly #options: ServerOptions
  readonly #closing: { now: boolean }
  #closed: Promise<void> | undefined

  private constructor(app: Api, options: ServerOptions, closing: { now: boolean }) {
    this.port = (app.server.address() as AddressInfo).port
    this.#app = app
    this.#connections = new Connections(app.server)
    this.#options = options
    this.#closing = closing
  }

  /** Rejects with ConfigurationError PORT_UNAVAILABLE when the address cannot be listened on. */
  static async open(options: ServerOptions): Promise<ApiServer> {
    const closing = { now: false }
    const checks = async () => (closing.now ? ['the process is shutting down'] : options.checks())
    const app = await buildApp({ ...options, checks })
    try {
      await app.listen({ host: await addressAt(options.host), port: options.port })
    } catch (error) {
      await app.close()
      throw portUnavailable('the API', { ...options, variable: 'HTTP_PORT' }, error)
    }
    const server = new ApiServer(app, options, closing)
    options.logger.info({ url: server.url }, 'the API is listening')
    return server
  }

  get url(): string {
    const { host } = this.#options
    return `http://${addressOf({ host, port: this.port })}`
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    const { logger, notice, drainMs = 10_000 } = this.#options
    this.#closing.now = true
    logger.info('the API is closing')
    this.#connections.keepNone()
    await notice?.()
    // Data that has arrived is read first: sockets are served between two such turns.
    await setImmediate()
    await setImmediate()
    const cut = setTimeout(() => {
      logger.warn({ drainMs }, 'requests were still under way; their connections are cut')
      this.#app.server.closeAllConnections()
    }, drainMs)
    // Idle connections close at once, the others after their answer.
    await this.#app.close().finally(() => clearTimeout(cut))
  }
}

/**
 * Fastify listens at all addresses of a name, but sets up only the server of the first. Nor does its close wait for the
 * requests of the others.
 */
async function addressAt(host: string): Promise<string> {
  return host === 'localhost' ? (await lookup(host, { order: 'ipv4first' })).address : host
}
