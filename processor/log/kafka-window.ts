/** Less than that, bytes, takes long for other reasons than its size. */
const MIN_BYTES = 16 * 1024
/** Before anything is known of the link: 2.6 s of one of 100 kB/s, and nine steps from the most. */
const FIRST_BYTES = 256 * 1024
/** What was slow becomes so much shorter; what was not, and was full, so much longer. */
const SHRINK = 4
const GROW = 1.5

/**
 * How many bytes are sent to Kafka at once. Over a slow link that takes its time, and nothing tells that it goes on: the
 * kernel takes megabytes in no time (up to 4 MiB by default on Linux, net.ipv4.tcp_wmem), and so does what stands between,
 * so to a socket a slow link looks as a dead one does. Only an answer is a sign of life. So what is sent is to be so small
 * that its answer comes well before anybody gives up on it: its size follows the time that the last ones took.
 */
export class KafkaWindow {
  readonly #maxBytes: number
  readonly #slowMs: number
  #bytes: number
  /** What the last request took that was as small as can be: brokers that are slow answer smaller ones no sooner. */
  #latencyMs = 0

  /** `slowMs`: what takes so much longer than the smallest is too large, and the smallest may take as long. */
  constructor(maxBytes: number, slowMs: number) {
    this.#maxBytes = maxBytes
    this.#slowMs = slowMs
    this.#bytes = Math.min(FIRST_BYTES, maxBytes)
  }

  get bytes(): number {
    return this.#bytes
  }

  /**
   * `bytes` were answered, or given up, after `tookMs`; `room`: what there was for them, where there was more to send.
   * What is sent at the same time is quick, or not, together: of it, one has the window grow.
   */
  took(bytes: number, tookMs: number, room: number | undefined): void {
    if (bytes <= MIN_BYTES) this.#latencyMs = Math.min(this.#slowMs, tookMs)
    const ownMs = tookMs - this.#latencyMs
    if (ownMs > this.#slowMs) {
      const fit = Math.floor((bytes * this.#slowMs) / SHRINK / ownMs)
      this.#bytes = Math.max(MIN_BYTES, Math.min(this.#bytes, fit))
    } else if (room === this.#bytes) {
      this.#bytes = Math.min(this.#maxBytes, Math.floor(this.#bytes * GROW))
    }
  }
}
