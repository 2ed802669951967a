import { lookup } from 'node:dns/promises'
import type { AddressInfo } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import type { Server as TlsServer } from 'node:tls'
import { addressOf } from '../processor/contract/address.ts'
import { portUnavailable } from '../processor/contract/errors.ts'
import { type TlsFiles, watchTls } from '../processor/runtime/tls.ts'
import { type Api, type AppOptions, buildApp } from './app.ts'
import { Connections } from './http/connections.ts'

export interface ServerOptions extends Omit<AppOptions, 'tls'> {
  readonly host: string
  /** The variable that sets the host, for messages. Default HOST. */
  readonly hostVariable?: string
  /** 0: any free port. */
  readonly port: number
  /** Its files are followed: open connections go on. Undefined: plain HTTP. */
  readonly tls?: TlsFiles | undefined
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
  readonly #files: Disposable | undefined
  #closed: Promise<void> | undefined

  private constructor(app: Api, options: ServerOptions, closing: { now: boolean }, files: Disposable | undefined) {
    this.port = (app.server.address() as AddressInfo).port
    this.#app = app
    this.#connections = new Connections(app.server)
    this.#options = options
    this.#closing = closing
    this.#files = files
  }

  /** Rejects with ConfigurationError when the address cannot be listened on, or the files of TLS cannot be used. */
  static async open(options: ServerOptions): Promise<ApiServer> {
    const closing = { now: false }
    const checks = async () => (closing.now ? ['the process is shutting down'] : options.checks())
    const files = options.tls && (await watchTls(options.tls, options.logger))
    const app = await buildApp({ ...options, tls: files?.value, checks })
    try {
      await app.listen({ host: await addressAt(options.host), port: options.port })
    } catch (error) {
      files?.[Symbol.dispose]()
      await app.close()
      throw portUnavailable('the API', { ...options, variable: 'HTTP_PORT' }, error)
    }
    if (files !== undefined) {
      const { server } = app
      files.onChange = (value) => (server as unknown as TlsServer).setSecureContext(value)
    }
    const server = new ApiServer(app, options, closing, files)
    options.logger.info({ url: server.url }, 'the API is listening')
    return server
  }

  get url(): string {
    const { host } = this.#options
    return `${this.#options.tls === undefined ? 'http' : 'https'}://${addressOf({ host, port: this.port })}`
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
    this.#files?.[Symbol.dispose]()
  }
}

/**
 * Fastify listens at all addresses of a name, but sets up only the server of the first. Nor does its close wait for the
 * requests of the others.
 */
async function addressAt(host: string): Promise<string> {
  return host === 'localhost' ? (await lookup(host, { order: 'ipv4first' })).address : host
}
