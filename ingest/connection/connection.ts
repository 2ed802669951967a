import { Duplex } from 'node:stream'
import { ownCopy } from '../../processor/contract/json.ts'
import { DISCONNECT, FilterList, type Header, PUBLISH, readHeader, SUBSCRIBE, UNSUBSCRIBE } from './framing.ts'
import { Outgoing } from './outgoing.ts'
import type { Pressure } from './pressure.ts'

/** Why a connection was closed: the label of its counter. */
export type CloseReason =
  | 'client disconnect'
  | 'keepalive timeout'
  | 'connection lost'
  | 'taken over'
  | 'server shutdown'
  | 'malformed packet'
  | 'oversized packet'
  | 'too many in flight'
  | 'too many filters'
  | 'too many incomplete packets'
  | 'slow reader'
  | 'append failed'
  | 'no connect'
  | 'refused'

/** Read ahead for the broker, bytes; at it the socket is not read. */
const READ_AHEAD_BYTES = 64 * 1024
/** Work of a packet that aedes parses, and of each filter in it, in messages of the fast path. */
const PARSED = 8

const header: Header = { type: 0, qos: 0, bytes: 0, length: 0 }

/**
 * A stream between a socket (TCP or WebSocket) and the broker. It looks at the fixed headers of what passes, and so
 * - closes the connection as soon as a header announces too large a packet, before its body is buffered;
 * - hands on no more packets than may be dealt with in one turn of the event loop, and no more QoS 1 and 2 messages
 *   than may be unacknowledged: the rest stays in the socket;
 * - hands on nothing after CONNECT until CONNACK has left, nothing after UNSUBSCRIBE until it is done, as the broker would
 *   have a SUBSCRIBE overtake it, and nothing after DISCONNECT [MQTT-3.14.4-1];
 * - closes a connection that does not read what it is sent.
 */
export class Connection extends Duplex {
  readonly #source: Duplex
  readonly #pressure: Pressure
  readonly #outgoing: Outgoing
  /** The first reason given for closing. */
  closeReason: CloseReason | undefined
  /** DISCONNECT was received. */
  disconnecting = false
  /** Its keepalive was set again for a silence that may be ours, and nothing has come since. */
  spared = false
  /** Work of a PUBLISH: of one connection they are much alike. */
  #publishWork = PARSED
  /** QoS 1 and 2 messages handed on and not acknowledged; of these, what the broker has not looked at yet. */
  #unacked = 0
  #unseen = 0
  #unseenBytes = 0

  #backlog: Buffer | undefined
  #offset = 0
  /** Bytes of the current packet still to come, its length, and whether it is owed an ack once it is whole. */
  #body = 0
  #length = 0
  #owing = false
  /** Of the current packet, if it is one with filters. */
  #filters: FilterList | undefined
  #begun = false
  /** CONNECT or UNSUBSCRIBE was handed on last, and the broker has not answered it. */
  #unanswered = false
  #stopped = false
  #full = false
  #blocked = false
  #acknowledging = false
  #sourceEnded = false
  #sourceClosed = false
  #ended = false

  constructor(source: Duplex, pressure: Pressure) {
    super({ readableHighWaterMark: READ_AHEAD_BYTES })
    this.#source = source
    this.#pressure = pressure
    this.#outgoing = new Outgoing(source, pressure)
    source.on('data', (chunk: Buffer) => this.receive(chunk))
    source.on('drain', () => this.#drained())
    source.on('end', () => {
      this.#sourceEnded = true
      this.proceed()
    })
    // The error says no more than that the connection is lost; 'close' follows.
    source.on('error', () => undefined)
    source.on('close', () => {
      this.#sourceClosed = true
      this.#drained()
      // What a client sent before it closed in good order is still handed on.
      if (!this.#sourceEnded) this.destroy()
    })
  }

  /** Closes the connection; the first reason counts. */
  fail(reason: CloseReason, detail: string = reason): Error {
    this.closeReason ??= reason
    const error = new Error(detail)
    this.destroy(error)
    return error
  }

  /** CONNACK or UNSUBACK has left: what the client sent after CONNECT or UNSUBSCRIBE can pass. */
  answered(): void {
    this.#unanswered = false
    this.proceed()
  }

  /** No more packets pass, whatever comes. */
  stop(): void {
    this.#stopped = true
    this.#source.resume()
  }

  /** Sends what is written and the end of the stream; resolves when the peer has closed too. */
  async farewell(signal: AbortSignal): Promise<void> {
    this.#outgoing.flush()
    if (this.#sourceClosed || signal.aborted) return
    await new Promise<void>((resolve) => {
      this.#source.once('close', resolve)
      signal.addEventListener('abort', () => resolve(), { once: true })
      this.#source.end()
    })
  }

  /** What the client sent waits here, or its acks wait for the log: its silence is ours. */
  get heldBack(): boolean {
    return this.#unacked > 0 || this.#blocked
  }

  /** Of the PUBLISH packets just handed on, the fast path took so many, and aedes parsed the others. */
  published(taken: number, parsed: number): void {
    this.#publishWork = Math.ceil((taken + PARSED * parsed) / (taken + parsed))
  }

  /** The broker looks at a QoS 1 or 2 message of `bytes`; false when the connection is gone. */
  see(bytes: number): boolean {
    if (this.destroyed) return false
    this.#unseen--
    this.#unseenBytes -= bytes
    return true
  }

  /** The log has a message the broker has looked at, or never will. */
  settled(bytes: number): void {
    this.#pressure.release(1, bytes)
  }

  /** Its ack leaves, or never will. */
  release(): void {
    this.#unacked--
    if (this.#blocked && this.#unacked <= this.#pressure.limits.maxUnacked >> 1) this.proceed()
  }

  /** The peer has not read what was written to it, and 'drain' will say when it has. */
  get clogged(): boolean {
    return this.#outgoing.clogged
  }

  /** Sends PUBACK, with all others of this turn. */
  acknowledge(messageId: number): void {
    if (this.destroyed) return
    if (!this.#acknowledging) {
      this.#acknowledging = true
      this.#outgoing.cork()
      process.nextTick(acknowledged, this)
    }
    this.#outgoing.puback(messageId)
  }

  acknowledged(): void {
    this.#acknowledging = false
    this.uncork()
  }

  receive(chunk: Buffer): void {
    this.spared = false
    if (this.#stopped || this.disconnecting || this.#ended || this.destroyed) return
    const backlog = this.#backlog
    this.#backlog = backlog === undefined ? chunk : Buffer.concat([backlog.subarray(this.#offset), chunk])
    this.#offset = 0
    this.proceed()
  }

  /** Hands on what may pass now. */
  proceed(): void {
    if (this.destroyed || this.#ended) return
    this.#blocked = false
    if (this.#backlog !== undefined && !this.#stopped) this.#pass(this.#backlog)
    if (this.destroyed) return
    if (this.#sourceEnded && !this.#blocked) {
      this.#ended = true
      this.push(null)
    } else {
      this.#flow()
    }
  }

  #pass(chunk: Buffer): void {
    const start = this.#offset
    let at = start
    let begun = false
    while (at < chunk.length) {
      if (this.#body === 0) {
        if (this.disconnecting || !this.#mayBegin(chunk, at)) break
        begun = true
        at += header.bytes
        this.#body = header.length
        this.#length = header.length
      }
      const bytes = Math.min(this.#body, chunk.length - at)
      if (this.#filters !== undefined && !this.#mayRead(this.#filters, chunk, at, bytes)) break
      this.#body -= bytes
      at += bytes
      if (this.#owing && this.#body === 0) this.#owe()
    }
    if (this.destroyed) return
    this.#offset = at
    if (at === chunk.length || this.disconnecting) {
      this.#backlog = undefined
    } else if (!this.#blocked) {
      // Of a header that is not whole, for the rest of which it waits as long as the client likes.
      this.#backlog = ownCopy(chunk.subarray(at))
      this.#offset = 0
    }
    this.#countIncomplete(begun)
    if (this.destroyed) return
    if (at > start && !this.push(start === 0 && at === chunk.length ? chunk : chunk.subarray(start, at)))
      this.#full = true
  }

  /** Reads the header at `at` and takes its packet in; false when it must wait, or the connection was closed. */
  #mayBegin(chunk: Buffer, at: number): boolean {
    const { limits } = this.#pressure
    if (this.#unanswered) {
      this.#blocked = true
      return false
    }
    const state = readHeader(chunk, at, limits.maxPacketBytes, header)
    if (state === 'incomplete') return false
    if (state !== 'whole') {
      this.fail(`${state} packet`)
      return false
    }
    const { type, qos } = header
    const full = qos > 0 ? this.#pressure.full : this.#pressure.busy
    if (full) this.#pressure.wait(this)
    if (full || (qos > 0 && this.#unacked >= limits.maxUnacked)) {
      this.#blocked = true
      return false
    }
    this.#pressure.spend(type === PUBLISH ? this.#publishWork : PARSED)
    if (qos > 0) this.#owing = true
    else if (type === SUBSCRIBE || type === UNSUBSCRIBE) this.#filters = new FilterList(type)
    else if (type === DISCONNECT) this.disconnecting = true
    if (!this.#begun || type === UNSUBSCRIBE) this.#unanswered = true
    this.#begun = true
    return true
  }

  /** Counts filters in the next `bytes` of the packet; false when they are too many, and the connection was closed. */
  #mayRead(filters: FilterList, chunk: Buffer, at: number, bytes: number): boolean {
    filters.read(chunk, at, at + bytes)
    if (filters.count > this.#pressure.limits.maxFilters) {
      this.fail('too many filters')
      return false
    }
    if (bytes === this.#body) {
      this.#pressure.spend(PARSED * filters.count)
      this.#filters = undefined
    }
    return true
  }

  /** The message is whole: not before, or headers alone would take what all connections share. */
  #owe(): void {
    this.#owing = false
    this.#unacked++
    this.#unseen++
    this.#unseenBytes += this.#length
    this.#pressure.take(this.#length)
  }

  /** `begun`: what is incomplete now is another packet than before. */
  #countIncomplete(begun: boolean): void {
    const { incomplete } = this.#pressure
    if (begun || this.#body === 0) incomplete.end(this)
    if (this.#body > 0) incomplete.hold(this, this.#length - this.#body)
  }

  /** Of all incomplete packets, too many bytes, this one's began first. */
  giveUp(): void {
    this.fail('too many incomplete packets')
  }

  #flow(): void {
    if ((this.#blocked || this.#full) && !this.#stopped) this.#source.pause()
    else if (this.#source.isPaused()) this.#source.resume()
  }

  override _read(): void {
    this.#full = false
    if (!this.destroyed && !this.#ended) this.#flow()
  }

  override cork(): void {
    this.#outgoing.cork()
  }

  override uncork(): void {
    this.#outgoing.uncork()
    if (this.#outgoing.excessive) this.fail('slow reader')
  }

  /** False when the caller should wait for 'drain'. Text is written as UTF-8; nobody is called back. */
  override write(chunk: Uint8Array | string): boolean {
    this.#outgoing.write(chunk)
    if (this.#outgoing.excessive) this.fail('slow reader')
    return !this.#outgoing.clogged
  }

  #drained(): void {
    if (this.#outgoing.drained()) this.emit('drain')
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#outgoing.flush()
    this.#pressure.forget(this)
    this.#pressure.release(this.#unseen, this.#unseenBytes)
    this.#unacked -= this.#unseen
    this.#unseen = 0
    this.#unseenBytes = 0
    this.#pressure.incomplete.end(this)
    this.#backlog = undefined
    this.#source.destroy()
    this.#outgoing.drained()
    callback(error)
  }
}

function acknowledged(connection: Connection): void {
  connection.acknowledged()
}
