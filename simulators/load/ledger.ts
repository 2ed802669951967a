import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'
import { SEQ_LAST, SEQ_START } from './load-connection.ts'

/** Longer latencies count as one minute. */
const MAX_LATENCY_US = 60_000_000
/** How many violations are kept in words. */
const MAX_TOLD = 5

/**
 * The ledger of a load: what each device sent, and what was acknowledged to it. Devices number their messages from SEQ_START,
 * and brokers acknowledge a connection's messages in order, so a few numbers per device are enough, however long a load runs.
 */
export class Ledger {
  /** Per device the last `seq` acknowledged; 0: none. */
  readonly last: Uint32Array
  /** Per device, epoch ms of the first and of the last acknowledgement; 0: there was none. */
  readonly firstAckAt: Float64Array
  readonly lastAckAt: Float64Array
  /** Time to acknowledgement, µs. */
  readonly histogram: RecordableHistogram = createHistogram({ lowest: 1, highest: MAX_LATENCY_US, figures: 3 })
  /** Aborts with the error when a connection fails that does not reconnect. */
  readonly failure = new AbortController()
  readonly #sent: Uint32Array
  published = 0
  count = 0
  /** Messages that were sent again on a new connection. */
  again = 0
  /** Connections that were lost or refused. */
  disconnects = 0
  /** Connections that were refused with a CONNACK (MQTT 3.1.1, 3.2.2.3). */
  refusals = 0
  /** Answers that MQTT does not allow; the first few in words. */
  violations = 0
  readonly violation: string[] = []
  /** Epoch ms. */
  lastAt = 0

  constructor(devices: number) {
    this.last = new Uint32Array(devices)
    this.firstAckAt = new Float64Array(devices)
    this.lastAckAt = new Float64Array(devices)
    this.#sent = new Uint32Array(devices)
  }

  get devices(): number {
    return this.last.length
  }

  /** Messages acknowledged to the device. */
  acknowledgedTo(device: number): number {
    const last = this.last[device] as number
    return last === 0 ? 0 : last - SEQ_START + 1
  }

  /** Messages of the first `devices` devices. */
  publishedBy(devices: number): number {
    return this.#sent.subarray(0, devices).reduce((sum, sent) => sum + sent, 0)
  }

  /** Milliseconds to the acknowledgement, with two decimals; 0 when nothing was acknowledged. */
  get ackMs(): { readonly p50: number; readonly p99: number; readonly max: number } {
    const { count, histogram } = this
    const ms = (us: number): number => (count === 0 ? 0 : Math.round(us / 10) / 100)
    return { p50: ms(histogram.percentile(50)), p99: ms(histogram.percentile(99)), max: ms(histogram.max) }
  }

  /** The number of the message that `device` sends next. */
  next(device: number): number {
    this.published++
    const seq = SEQ_START + (this.#sent[device] as number)
    if (seq === SEQ_LAST)
      this.failed(new Error(`device ${device} has no number left after ${SEQ_LAST}: use more devices`))
    this.#sent[device] = seq - SEQ_START + 1
    return seq
  }

  /** Called for the messages of a device in the order of their sends. */
  acknowledged(device: number, seq: number): void {
    const now = Date.now()
    this.count++
    if (this.last[device] === 0) this.firstAckAt[device] = now
    this.last[device] = seq
    this.lastAckAt[device] = now
  }

  latency(ms: number): void {
    this.lastAt = Date.now()
    this.histogram.record(Math.min(Math.max(1, Math.round(ms * 1000)), MAX_LATENCY_US))
  }

  resent(messages: number): void {
    this.again += messages
  }

  disconnected(): void {
    this.disconnects++
  }

  refused(): void {
    this.refusals++
  }

  violated(what: string): void {
    this.violations++
    if (this.violation.length < MAX_TOLD) this.violation.push(what)
  }

  failed(error: Error): void {
    this.failure.abort(error)
  }
}
