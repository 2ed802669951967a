import { Duplex } from 'node:stream'
import { WebSocket } from 'ws'
import { ownCopy } from '../../processor/contract/json.ts'
import type { Incomplete } from './pressure.ts'

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

/** Of a message so much is handed on at a time, bytes: as much as a read of a socket brings. */
const PIECE_BYTES = 64 * 1024

/**
 * A WebSocket as a stream of bytes. `ws` gathers a message, of up to several MB, until it is whole; it leaves here in
 * pieces, so that behind this stream no more waits than of a TCP connection. What waits before counts as incomplete:
 * the message that is being gathered, and those that have not left.
 */
export class WebSocketStream extends Duplex {
  readonly #webSocket: WebSocket
  readonly #incomplete: Incomplete
  /** Closes the connection. */
  readonly giveUp: () => void
  readonly #frames = new Frames()
  readonly #messages: Buffer[] = []
  /** Bytes of `#messages`, and how many of the first have left. */
  #bytes = 0
  #offset = 0
  /** The reader wants more. */
  #wanted = true
  #counted = 0
  #failed = false
  #closed = false

  /** `socket`: below `webSocket`. */
  constructor(webSocket: WebSocket, socket: Duplex, incomplete: Incomplete, giveUp: () => void) {
    super({ readableHighWaterMark: PIECE_BYTES })
    this.#webSocket = webSocket
    this.#incomplete = incomplete
    this.giveUp = giveUp
    // Before `ws`, which gives up its messages while it is given the chunk.
    socket.prependListener('data', (chunk: Buffer) => this.#gathers(chunk))
    webSocket.on('message', (data, isBinary) => {
      // [MQTT-6.0.0-1]
      if (isBinary) this.#take(data as Buffer)
      else webSocket.terminate()
    })
    webSocket.on('error', (error) => {
      this.#failed = true
      this.destroy(error)
    })
    webSocket.on('close', () => {
      this.#closed = true
      this.#handOn()
    })
  }

  #gathers(chunk: Buffer): void {
    // After an error, or a close frame, `ws` drops what comes.
    if (this.destroyed || this.#webSocket.readyState !== WebSocket.OPEN) return
    // What it has now began later.
    if (this.#frames.read(chunk)) this.#hold(0)
    this.#hold(this.#frames.incomplete + this.#bytes)
  }

  #hold(bytes: number): void {
    if (bytes === this.#counted) return
    this.#counted = bytes
    if (bytes > 0) this.#incomplete.hold(this, bytes)
    else this.#incomplete.end(this)
  }

  #take(message: Buffer): void {
    if (this.destroyed || message.length === 0) return
    this.#messages.push(message)
    this.#bytes += message.length
    this.#handOn()
  }

  #handOn(): void {
    while (this.#wanted && this.#messages.length > 0) this.#wanted = this.push(this.#piece())
    if (this.destroyed) return
    if (this.#messages.length > 0 || !this.#wanted) this.#webSocket.pause()
    else if (this.#webSocket.isPaused) this.#webSocket.resume()
    if (this.#messages.length === 0 && this.#closed) this.push(null)
    this.#hold(this.#frames.incomplete + this.#bytes)
  }

  /** The next of the first message. */
  #piece(): Buffer {
    const message = this.#messages[0] as Buffer
    const from = this.#offset
    this.#offset = Math.min(from + PIECE_BYTES, message.length)
    const piece = message.subarray(from, this.#offset)
    if (this.#offset === message.length) {
      this.#messages.shift()
      this.#bytes -= message.length
      this.#offset = 0
    }
    // A copy: a view of the last piece would keep the whole message.
    return piece.length === message.length ? piece : ownCopy(piece)
  }

  override _read(): void {
    this.#wanted = true
    this.#handOn()
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    // Who has closed in good order takes no answers, and what it sent before is still handed on.
    if (this.#webSocket.readyState === WebSocket.OPEN) this.#webSocket.send(chunk, done)
    else done()
  }

  override _final(done: () => void): void {
    this.#webSocket.close()
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#messages.length = 0
    this.#incomplete.end(this)
    const { readyState } = this.#webSocket
    if (readyState === WebSocket.CLOSED) {
      done(error)
      return
    }
    this.#webSocket.once('close', () => done(error))
    // After an error of its own `ws` sends the peer its reason, and waits for its answer.
    if (!this.#failed) this.#webSocket.terminate()
  }
}
