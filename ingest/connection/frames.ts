/** Of control frames (RFC 6455 section 5.2), which may come between the frames of a message, and hold at most 125 bytes. */
const CONTROL = 0x8
const FIN = 0x80
const MASK_BYTES = 4

/** Follows the frames of what a client sends by WebSocket, whose bytes come in pieces: what `ws` has of a message. */
export class Frames {
  /** Bytes of the message that is begun and not complete. */
  incomplete = 0
  /** Bytes to come of the current frame: of its header, and of its body once the header is there. */
  #header = 2
  #body = 0
  /** Bytes of the header read so far. */
  #read = 0
  #isControl = false
  #isLast = false

  /** True when a message ended in `chunk`. */
  read(chunk: Uint8Array): boolean {
    let ended = false
    for (let at = 0; at < chunk.length; ) {
      if (this.#header > 0) {
        this.#readHeader(chunk[at++] as number)
      } else {
        const bytes = Math.min(this.#body, chunk.length - at)
        this.#body -= bytes
        at += bytes
        if (!this.#isControl) this.incomplete += bytes
      }
      if (this.#header === 0 && this.#body === 0) ended = this.#end() || ended
    }
    return ended
  }

  #readHeader(byte: number): void {
    const at = this.#read++
    this.#header--
    if (at === 0) {
      this.#isControl = (byte & 0x0f & CONTROL) !== 0
      this.#isLast = (byte & FIN) !== 0
    } else if (at === 1) {
      const length = byte & 0x7f
      const extended = length === 126 ? 2 : length === 127 ? 8 : 0
      this.#body = extended === 0 ? length : 0
      this.#header = extended + MASK_BYTES
    } else if (this.#header >= MASK_BYTES) {
      this.#body = this.#body * 256 + byte
    }
  }

  #end(): boolean {
    this.#header = 2
    this.#read = 0
    if (this.#isControl || !this.#isLast) return false
    this.incomplete = 0
    return true
  }
}
