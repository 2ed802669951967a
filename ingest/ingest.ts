import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { Appender, type IngestLog } from './append/batcher.ts'
import { Listener } from './connection/listener.ts'
import { DEFAULT_LIMITS, type Limits } from './limits.ts'
import { IngestMetrics } from './metrics.ts'
import { Broker } from './mqtt/broker.ts'
import { Epochs } from './mqtt/session.ts'

export interface IngestOptions {
  readonly log: IngestLog
  readonly host: string
  /** 0: any free port. */
  readonly port: number
  readonly limits?: Partial<Limits>
  readonly logger: Logger
  readonly registry: Registry
  /** Epoch ms. */
  readonly now: () => number
  /** Returns a number from 0 to 1, as Math.random does. */
  readonly random: () => number
}

/** Device -> log: an MQTT 3.1.1 broker that acknowledges a message when the log has it. */
export class Ingest implements AsyncDisposable {
  readonly address: string
  readonly port: number
  readonly #broker: Broker
  readonly #listener: Listener
  readonly #logger: Logger
  #stopped: Promise<void> | undefined

  private constructor(broker: Broker, listener: Listener, logger: Logger) {
    this.#broker = broker
    this.#listener = listener
    this.#logger = logger
    this.address = listener.address.address
    this.port = listener.address.port
  }

  /** Rejects with ConfigurationError PORT_UNAVAILABLE when the address cannot be bound. */
  static async open({ log, host, port, limits, logger, registry, now, random }: IngestOptions): Promise<Ingest> {
    const bounds: Limits = { ...DEFAULT_LIMITS, ...limits }
    const metrics = new IngestMetrics(registry)
    const appender = new Appender(log, bounds, metrics, logger)
    const epochs = new Epochs(now, random)
    const broker = await Broker.open({ limits: bounds, metrics, appender, epochs, logger, now })
    try {
      const listener = await Listener.open(broker, host, port, bounds, metrics)
      const ingest = new Ingest(broker, listener, logger)
      logger.info({ address: ingest.address, port: ingest.port }, 'MQTT is served, over TCP and WebSocket')
      return ingest
    } catch (error) {
      await broker.stop()
      throw error
    }
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
    this.#logger.info('MQTT is no longer served')
  }
}
