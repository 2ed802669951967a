import { lookup } from 'node:dns/promises'
import type { AddressInfo } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { addressOf } from '../processor/contract/address.ts'
import { portUnavailable } from '../processor/contract/errors.ts'
import { type Api, type AppOptions, buildApp } from './app.ts'
import { Connections } from './http/connections.ts'

export interface ServerOptions extends AppOptions {
  readonly host: string
  /** What sets it; default HOST. */
  readonly hostVariable?: string
  /** 0: any free port. */
  readonly port: number
  /** What a close waits for while /readyz already fails and all is still served: time for balancers to look elsewhere. */
  readonly notice?: () => Promise<unknown>
  /** How long a close waits for requests under way, in ms; then their connections are cut. Default 10,000. */
  readonly drainMs?: number
}

/** The HTTP application on a socket. Closing it: readiness fails, requests under way end, connections close. */
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

  /** ConfigurationError PORT_UNAVAILABLE when the address cannot be listened on. */
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
    // What has arrived by now is read first: between two such turns, sockets are.
    await setImmediate()
    await setImmediate()
    const cut = setTimeout(() => {
      logger.warn({ drainMs }, 'requests were still under way; their connections are cut')
      this.#app.server.closeAllConnections()
    }, drainMs)
    // Idle connections are closed at once, the others after their answer.
    await this.#app.close().finally(() => clearTimeout(cut))
  }
}

/**
 * Fastify listens at all addresses of this name, and to all but the first by servers that it does not let set up; nor does
 * a close wait for what they have under way.
 */
async function addressAt(host: string): Promise<string> {
  return host === 'localhost' ? (await lookup(host, { order: 'ipv4first' })).address : host
}
