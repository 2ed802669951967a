import type { Logger } from 'pino'
import type { Gauge } from 'prom-client'
import { RetryableError } from '../contract/errors.ts'
import { type KafkaCluster, pause } from './kafka-cluster.ts'

const PROBE_INTERVAL_MS = 500
/** A cluster that has not answered for so long cannot be written to, whatever its connections say. */
const PROBE_PATIENCE_MS = 2500

/** Whether Kafka can be written to, as far as the last attempts tell. */
export class KafkaHealth {
  readonly #logger: Logger
  readonly #gauge: Gauge
  fault: RetryableError | undefined

  constructor(logger: Logger, gauge: Gauge) {
    this.#logger = logger
    this.#gauge = gauge
  }

  /** Something that took Kafka's answer had it. */
  succeed(): void {
    if (this.fault === undefined) return
    this.fault = undefined
    this.#gauge.set(0)
    this.#logger.info('Kafka answers again')
  }

  fail(cause: unknown): void {
    if (this.fault !== undefined) return
    const reason = cause instanceof Error ? cause.message : String(cause)
    this.fault = new RetryableError('LOG_UNAVAILABLE', `Kafka cannot be written to: ${reason}`, cause)
    this.#gauge.set(1)
    this.#logger.error({ err: cause }, 'Kafka cannot be written to')
  }

  /**
   * Asks the cluster now and then: without it a process that has nothing to write would not notice that Kafka is away,
   * and one that refuses writes because of the fault would never notice that it is back. `stuck`: whether a write waits
   * for longer than it should.
   */
  async run(cluster: KafkaCluster, stuck: () => boolean, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await answered(cluster.refresh())
        if (!stuck()) this.succeed()
      } catch (error) {
        if (!signal.aborted) this.fail(error)
      }
      await pause(PROBE_INTERVAL_MS, signal)
    }
  }
}

async function answered<T>(answer: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const error = new RetryableError('LOG_UNAVAILABLE', `no broker has answered within ${PROBE_PATIENCE_MS} ms`)
  const timer = setTimeout(() => reject(error), PROBE_PATIENCE_MS)
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
  }
}
