import { Duplex } from 'node:stream'
import { WebSocket } from 'ws'
import { ownCopy } from '../../processor/contract/json.ts'
import type { Incomplete } from './pressure.ts'

/** Bytes of a message that are passed on at a time: as many as one read of a socket brings. */
const PIECE_BYTES = 64 * 1024

/**
 * Internals of `ws` 8, which its types lack: the bytes that it has of the current frame, and of the frames of the message
 * before it. `maxPayload` bounds one message alone; all connections together could still fill the memory.
 */
interface Internals {
  readonly _receiver: { readonly _bufferedBytes: number; readonly _messageLength: number }
}

/**
 * A WebSocket as a stream of bytes. `ws` gathers a message, of up to several MB, until it is whole; it leaves here in
 * pieces, so that no more bytes wait behind this stream than behind a TCP socket. Bytes that wait here or in `ws` count as
 * incomplete.
 */
export class WebSocketStream extends Duplex {
  readonly #webSocket: WebSocket
  readonly #incomplete: Incomplete
  /** Closes the connection. */
  readonly giveUp: () => void
  readonly #messages: Buffer[] = []
  /** Bytes of `#messages`, and how many of the first message have left. */
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
    // After the listener of `ws`, which has taken the chunk in by then.
    socket.on('data', () => {
      if (!this.destroyed && webSocket.readyState === WebSocket.OPEN) this.#count()
    })
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
      this.#passOn()
    })
  }

  #count(): void {
    const { _bufferedBytes, _messageLength } = (this.#webSocket as unknown as Internals)._receiver
    const bytes = _bufferedBytes + _messageLength + this.#bytes
    if (bytes === this.#counted) return
    this.#counted = bytes
    if (bytes > 0) this.#incomplete.hold(this, bytes)
    else this.#incomplete.end(this)
  }

  #take(message: Buffer): void {
    if (this.destroyed || message.length === 0) return
    // Whatever is incomplete after this message began later.
    this.#incomplete.end(this)
    this.#counted = 0
    this.#messages.push(message)
    this.#bytes += message.length
    this.#passOn()
  }

  #passOn(): void {
    while (this.#wanted && this.#messages.length > 0) this.#wanted = this.push(this.#piece())
    if (this.destroyed) return
    if (this.#messages.length > 0 || !this.#wanted) this.#webSocket.pause()
    else if (this.#webSocket.isPaused) this.#webSocket.resume()
    if (this.#messages.length === 0 && this.#closed) this.push(null)
    this.#count()
  }

  /** The next piece of the first message. */
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
    this.#passOn()
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    // A client that has closed in good order takes no answers; what it sent before is still passed on.
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
