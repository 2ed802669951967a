import type { Logger } from 'pino'
import { partitionOf } from '../../processor/contract/partition.ts'
import type { NewRecord } from '../../processor/contract/record.ts'
import { isDeviceId } from '../../processor/contract/telemetry.ts'
import type { Log } from '../../processor/log/log.ts'
import type { Limits } from '../limits.ts'
import type { Counts } from '../metrics.ts'
import { Batcher, type Shared } from './batcher.ts'

/** What ingest needs of the log. */
export type Sink = Pick<Log, 'append' | 'fault' | 'faultAt'> & {
  readonly identity: Pick<Log['identity'], 'partitions'>
}

/**
 * Where records wait for the log: those of each partition of telemetry by themselves, and dead letters, so that a
 * partition that cannot be written keeps nothing waiting but its own devices.
 */
export class Gather implements Shared {
  readonly limits: Limits
  readonly counts: Counts
  qos0Bytes = 0
  /** Of dead letters. */
  readonly letters: Batcher
  readonly #log: Sink
  readonly #logger: Logger
  readonly #partitions: readonly Batcher[]
  #failing = false
  readonly #settled: (() => void)[] = []

  constructor(log: Sink, limits: Limits, counts: Counts, logger: Logger) {
    this.limits = limits
    this.counts = counts
    this.#log = log
    this.#logger = logger
    const telemetry = (records: readonly NewRecord[]): Promise<void> => log.append('telemetry', records)
    this.#partitions = Array.from({ length: log.identity.partitions }, () => new Batcher(telemetry, this))
    this.letters = new Batcher((records) => log.append('dead-letters', records), this)
  }

  /** Why nothing new should be begun for the device now; undefined while the log takes what it is given. */
  faultOf(deviceId: string): Error | undefined {
    const index = partitionOf(deviceId, this.#partitions.length)
    return this.#log.faultAt(index) ?? this.#partitions[index]?.fault
  }

  /** The same for a client: one that is no device may speak for devices of any partition. */
  faultFor(clientId: string): Error | undefined {
    if (isDeviceId(clientId)) return this.faultOf(clientId)
    const { fault } = this.#log
    if (fault !== undefined) return fault
    const faults = this.#partitions.map((batcher) => batcher.fault)
    return faults.includes(undefined) ? undefined : faults[0]
  }

  get faultOfLetters(): Error | undefined {
    return this.#log.fault ?? this.letters.fault
  }

  /** The batcher of a device's records. */
  of(deviceId: string): Batcher {
    return this.#partitions[partitionOf(deviceId, this.#partitions.length)] as Batcher
  }

  /** Resolves when everything added is settled; what lingers is sent at once. */
  async settled(): Promise<void> {
    for (const batcher of this.#all()) batcher.flush()
    if (!this.#idle) await new Promise<void>((resolve) => this.#settled.push(resolve))
  }

  idle(): void {
    if (this.#settled.length > 0 && this.#idle) for (const resolve of this.#settled.splice(0)) resolve()
  }

  ended(error: Error | null): void {
    if (error !== null && !this.#failing) {
      this.#failing = true
      this.#logger.error({ err: error }, 'the log does not take messages: they are not acknowledged until it does')
    } else if (error === null && this.#failing && !this.#faulty) {
      this.#failing = false
      this.#logger.info('the log takes messages again')
    }
  }

  get #idle(): boolean {
    return this.#all().every((batcher) => batcher.idle)
  }

  get #faulty(): boolean {
    return (
      this.#partitions.some((batcher, index) => (this.#log.faultAt(index) ?? batcher.fault) !== undefined) ||
      this.letters.fault !== undefined
    )
  }

  #all(): readonly Batcher[] {
    return [...this.#partitions, this.letters]
  }
}
