import type { KafkaLog } from '../../../processor/log/kafka/kafka-log.ts'
import type { Cluster } from '../../../simulators/cluster.ts'
import { loadDeviceId } from '../../../simulators/load/load-connection.ts'
import { seededRandom } from '../../../simulators/random.ts'
import { PREFIX } from '../ingest.ts'
import { KeepAlive } from '../keep-alive.ts'
import { type Fleet, loadRecord } from './fill.ts'

const TICK_MS = 2
/** Reads under way at most: one that takes long must not hold up the next ones. */
const READERS = 32

/** Records appended at a steady rate, so that every partition always has something to commit. */
export class SteadyRecords implements AsyncDisposable {
  readonly #log: KafkaLog
  readonly #timer: NodeJS.Timeout
  readonly #pending = new Set<Promise<void>>()
  #failure: unknown
  #sent: number

  /** `from`: number of the first record. */
  constructor(log: KafkaLog, fleet: Fleet, from: number, perSecond: number) {
    this.#log = log
    this.#sent = from
    const start = performance.now()
    this.#timer = setInterval(() => {
      const due = from + Math.floor(((performance.now() - start) * perSecond) / 1000)
      if (due === this.#sent) return
      const now = Date.now()
      const records = Array.from({ length: due - this.#sent }, (_, i) => loadRecord(this.#sent + i, fleet, now))
      this.#sent = due
      const appended = log
        .append('telemetry', records)
        .catch((error: unknown) => (this.#failure ??= error))
        .then(() => void this.#pending.delete(appended))
      this.#pending.add(appended)
    }, TICK_MS)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    // A log that is closed rejects what is under way.
    await Promise.all(this.#pending)
    await this.#log[Symbol.asyncDispose]()
    if (this.#failure !== undefined) throw this.#failure
  }
}

/** GETs at a steady rate, each counted. */
export class SteadyReads implements AsyncDisposable {
  /** Of every answer, ms. */
  readonly latencies: number[] = []
  /** What was answered with anything but 200, or not at all. */
  readonly failures: string[] = []
  readonly #lanes: KeepAlive[] = []
  readonly #pending = new Set<Promise<void>>()
  readonly #timer: NodeJS.Timeout

  constructor({ httpPort }: Cluster, { devices, prefix = PREFIX }: Fleet, perSecond: number) {
    const random = seededRandom(2, 0)
    const start = performance.now()
    let asked = 0
    for (let i = 0; i < READERS; i++) this.#lanes.push(new KeepAlive(httpPort))
    this.#timer = setInterval(() => {
      const due = Math.floor(((performance.now() - start) * perSecond) / 1000)
      for (; asked < due; asked++) {
        const id = loadDeviceId(prefix, Math.floor(random() * devices))
        const read = this.#read(this.#lanes[asked % READERS] as KeepAlive, `/v1/devices/${id}`)
        this.#pending.add(read)
        void read.then(() => this.#pending.delete(read))
      }
    }, TICK_MS)
  }

  /** Never rejects. */
  async #read(lane: KeepAlive, path: string): Promise<void> {
    const start = performance.now()
    try {
      const { status, text } = await lane.send('GET', path)
      if (status !== 200) this.failures.push(`${path}: ${status} ${text}`)
    } catch (error) {
      this.failures.push(`${path}: ${error instanceof Error ? error.message : String(error)}`)
    }
    this.latencies.push(performance.now() - start)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    await Promise.all(this.#pending)
    for (const lane of this.#lanes) lane[Symbol.dispose]()
  }
}
