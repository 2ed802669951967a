import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { type Audit, NO_AUDIT } from '../processor/runtime/audit.ts'
import { Appender, type IngestLog } from './append/batcher.ts'
import { Listener } from './connection/listener.ts'
import type { MqttAccess } from './identity/access.ts'
import { Guard } from './identity/guard.ts'
import { DEFAULT_LIMITS, type Limits } from './limits.ts'
import { IngestMetrics } from './metrics.ts'
import { Broker } from './mqtt/broker.ts'
import { Epochs } from './mqtt/session.ts'

export interface IngestOptions {
  readonly log: IngestLog
  readonly access: MqttAccess
  readonly limits?: Partial<Limits>
  readonly logger: Logger
  readonly registry: Registry
  /** Default: none. */
  readonly audit?: Audit
  /** Epoch ms. */
  readonly now: () => number
  /** Returns a number from 0 to 1, as Math.random does. */
  readonly random: () => number
}

/** Device -> log: an MQTT 3.1.1 broker that acknowledges a message when the log has it. */
export class Ingest implements AsyncDisposable {
  readonly address: string
  /** 0: MQTT without TLS is not served. */
  readonly port: number
  /** Undefined: MQTT with TLS is not served. */
  readonly tlsPort: number | undefined
  readonly #broker: Broker
  readonly #listener: Listener
  readonly #guard: Guard
  readonly #logger: Logger
  #stopped: Promise<void> | undefined

  private constructor(broker: Broker, listener: Listener, guard: Guard, logger: Logger) {
    this.#broker = broker
    this.#listener = listener
    this.#guard = guard
    this.#logger = logger
    this.address = listener.address
    this.port = listener.port
    this.tlsPort = listener.tlsPort
  }

  /** Rejects with ConfigurationError when an address cannot be bound, or a file of identities cannot be used. */
  static async open(options: IngestOptions): Promise<Ingest> {
    const { log, access, limits, logger, registry, audit = NO_AUDIT, now, random } = options
    const bounds: Limits = { ...DEFAULT_LIMITS, ...limits }
    const metrics = new IngestMetrics(registry)
    const appender = new Appender(log, bounds, metrics, logger)
    const epochs = new Epochs(now, random)
    const guard = await Guard.open({ access, limits: bounds, logger, now })
    const broker = await Broker.open({ limits: bounds, metrics, guard, appender, epochs, logger, audit, now })
    try {
      const listener = await Listener.open({ broker, access, limits: bounds, metrics, audit, logger })
      const ingest = new Ingest(broker, listener, guard, logger)
      const { address, port, tlsPort } = ingest
      logger.info({ address, port, tlsPort }, 'MQTT is served, over TCP and WebSocket')
      return ingest
    } catch (error) {
      await broker.stop()
      await guard[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Says why clients cannot be told apart now. */
  check(): readonly string[] {
    return this.#guard.check()
  }

  /** Lets acks leave first. Devices become `unknown`, and no will is published: a deploy must not look like an outage. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  async #stop(): Promise<void> {
    this.#listener.stop()
    await this.#broker.stop()
    this.#listener.close()
    await this.#guard[Symbol.asyncDispose]()
    this.#logger.info('MQTT is no longer served')
  }
}
