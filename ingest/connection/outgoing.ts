import type { Duplex } from 'node:stream'
import type { Pressure } from './pressure.ts'

/** Small writes are joined up to this many bytes. */
const JOINED_BYTES = 16 * 1024
const FIRST_JOINED_BYTES = 256
/** A write of this many bytes is not joined: the copy would cost more than a second write. */
const LARGE_BYTES = 4 * 1024
/** MQTT 3.1.1 section 3.4. */
const PUBACK = 0x40
const PUBACK_BYTES = 4
const NOTHING = Buffer.alloc(0)

/** Joins the small writes of one turn, so that the acks of a batch leave in one system call; counts the unread bytes. */
export class Outgoing {
  readonly #source: Duplex
  readonly #pressure: Pressure
  #joined = NOTHING
  #joinedBytes = 0
  #corked = 0
  #unread = 0
  /** The socket asked to wait for 'drain'. */
  clogged = false

  constructor(source: Duplex, pressure: Pressure) {
    this.#source = source
    this.#pressure = pressure
  }

  /** The peer leaves more bytes unread than is allowed. */
  get excessive(): boolean {
    const { limits, outgoingBytes } = this.#pressure
    return this.#unread > limits.maxOutgoingBytes || (this.clogged && outgoingBytes > limits.maxOutgoingTotalBytes)
  }

  cork(): void {
    this.#corked++
  }

  uncork(): void {
    if (this.#corked > 0 && --this.#corked === 0) this.flush()
  }

  write(chunk: Uint8Array | string): void {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
    if (bytes.length >= LARGE_BYTES) {
      this.flush()
      this.#send(bytes)
      return
    }
    if (this.#joinedBytes + bytes.length > JOINED_BYTES) this.flush()
    this.#join(bytes)
    if (this.#corked === 0) this.flush()
  }

  puback(messageId: number): void {
    if (this.#joinedBytes + PUBACK_BYTES > JOINED_BYTES) this.flush()
    const at = this.#joinedBytes
    const joined = this.#room(at + PUBACK_BYTES)
    joined[at] = PUBACK
    joined[at + 1] = 2
    joined[at + 2] = messageId >> 8
    joined[at + 3] = messageId & 0xff
    this.#joinedBytes = at + PUBACK_BYTES
    if (this.#corked === 0) this.flush()
  }

  flush(): void {
    if (this.#joinedBytes === 0) return
    const bytes = this.#joined.subarray(0, this.#joinedBytes)
    this.#joined = NOTHING
    this.#joinedBytes = 0
    this.#send(bytes)
  }

  /** Called on 'drain', and when the socket is gone; true when somebody waits for it. */
  drained(): boolean {
    this.#count(this.#source.destroyed ? 0 : this.#source.writableLength)
    const waited = this.clogged
    this.clogged = false
    return waited
  }

  #join(bytes: Uint8Array): void {
    const at = this.#joinedBytes
    const end = at + bytes.length
    const joined = this.#room(end)
    // The parts of an ack have one or two bytes: a call of `set` would cost more than all else.
    if (bytes.length <= 4) for (let i = 0; i < bytes.length; i++) joined[at + i] = bytes[i] as number
    else joined.set(bytes, at)
    this.#joinedBytes = end
  }

  #room(end: number): Buffer {
    if (end > this.#joined.length) {
      const larger = Buffer.allocUnsafe(Math.max(FIRST_JOINED_BYTES, this.#joined.length * 2, end))
      this.#joined.copy(larger, 0, 0, this.#joinedBytes)
      this.#joined = larger
    }
    return this.#joined
  }

  #send(bytes: Uint8Array): void {
    if (this.#source.destroyed || this.#source.writableEnded) return
    if (!this.#source.write(bytes)) this.clogged = true
    this.#count(this.#source.writableLength)
  }

  #count(unread: number): void {
    this.#pressure.outgoingBytes += unread - this.#unread
    this.#unread = unread
  }
}
