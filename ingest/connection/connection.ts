import { Duplex } from 'node:stream'
import { ownCopy } from '../../processor/contract/json.ts'
import type { Pace } from '../identity/accounts.ts'
import type { Peer } from '../identity/guard.ts'
import { DISCONNECT, FilterList, type Header, PUBLISH, readHeader, SUBSCRIBE, UNSUBSCRIBE } from './framing.ts'
import { Outgoing } from './outgoing.ts'
import type { Pressure } from './pressure.ts'

/** Why a connection was closed: the labels of its counter. */
export const CLOSE_REASONS = [
  'client disconnect',
  'keepalive timeout',
  'connection lost',
  'taken over',
  'server shutdown',
  'malformed packet',
  'oversized packet',
  'too many in flight',
  'too many filters',
  'too many incomplete packets',
  'slow reader',
  'append failed',
  'no connect',
  'refused',
  'credential over',
  'not allowed',
] as const
export type CloseReason = (typeof CLOSE_REASONS)[number]

/** Read ahead for the broker, bytes; at it the socket is not read. */
const READ_AHEAD_BYTES = 64 * 1024
/** Work of a packet that aedes parses, and of each filter in it; a message of the fast path is 1. */
const PARSE_WORK = 8

const UNKNOWN: Peer = { address: 'unknown', certificate: undefined }
const header: Header = { type: 0, qos: 0, bytes: 0, length: 0 }

/**
 * A stream between a socket (TCP or WebSocket) and the broker. It reads the fixed headers of the packets that pass, and
 * - closes the connection as soon as a header announces too large a packet, before its body is buffered;
 * - passes on no more packets than fit into one turn of the event loop, and no more QoS 1 and 2 messages than may be
 *   unacknowledged: the rest stays in the socket;
 * - passes on nothing after CONNECT until CONNACK has left, nothing after UNSUBSCRIBE until UNSUBACK has left (in aedes a
 *   SUBSCRIBE could overtake it), and nothing after DISCONNECT [MQTT-3.14.4-1];
 * - closes a connection that does not read what it is sent.
 */
export class Connection extends Duplex {
  readonly peer: Peer
  readonly #source: Duplex
  readonly #pressure: Pressure
  readonly #outgoing: Outgoing
  closeReason: CloseReason | undefined
  /** Of its client; undefined: as fast as it can. */
  pace: Pace | undefined
  /** DISCONNECT was received. */
  disconnecting = false
  /** The broker extended its keepalive once, and nothing has come since. */
  spared = false
  /** Estimated from the last PUBLISH packets: those of one connection are much alike. */
  #publishWork = PARSE_WORK
  /** QoS 1 and 2 messages passed on and not acknowledged; of these, those that the broker has not looked at yet. */
  #unacked = 0
  #unseen = 0
  #unseenBytes = 0

  #backlog: Buffer | undefined
  #offset = 0
  /** The current packet: bytes of its body still to come, its length, whether it wants an ack, and its filters. */
  #body = 0
  #length = 0
  #owing = false
  #filters: FilterList | undefined
  #begun = false
  /** CONNECT or UNSUBSCRIBE was passed on last, and the broker has not answered it. */
  #unanswered = false
  #stopped = false
  #full = false
  #blocked = false
  #acknowledging = false
  /** Until its client may publish again. */
  #rest: NodeJS.Timeout | undefined
  #sourceEnded = false
  #sourceClosed = false
  #ended = false

  constructor(source: Duplex, pressure: Pressure, peer: Peer = UNKNOWN) {
    super({ readableHighWaterMark: READ_AHEAD_BYTES })
    this.peer = peer
    this.#source = source
    this.#pressure = pressure
    this.#outgoing = new Outgoing(source, pressure)
    source.on('data', (chunk: Buffer) => this.receive(chunk))
    source.on('drain', () => this.#drained())
    source.on('end', () => {
      this.#sourceEnded = true
      this.proceed()
    })
    // 'close' follows.
    source.on('error', () => undefined)
    source.on('close', () => {
      this.#sourceClosed = true
      this.#drained()
      // What a client sent before it closed in good order is still passed on.
      if (!this.#sourceEnded) this.destroy()
    })
  }

  /** Closes the connection; the first reason stays. */
  fail(reason: CloseReason, detail: string = reason): Error {
    this.closeReason ??= reason
    const error = new Error(detail)
    this.destroy(error)
    return error
  }

  /** CONNACK or UNSUBACK has left. */
  answered(): void {
    this.#unanswered = false
    this.proceed()
  }

  /** Drops all further packets. */
  stop(): void {
    this.#stopped = true
    this.#source.resume()
  }

  /** Flushes and ends the stream; resolves when the peer has closed too. */
  async farewell(signal: AbortSignal): Promise<void> {
    this.#outgoing.flush()
    if (this.#sourceClosed || signal.aborted) return
    await new Promise<void>((resolve) => {
      this.#source.once('close', resolve)
      signal.addEventListener('abort', () => resolve(), { once: true })
      this.#source.end()
    })
  }

  /** Packets of the client wait here, or its acks wait for the log: its silence is our fault. */
  get heldBack(): boolean {
    return this.#unacked > 0 || this.#blocked
  }

  /** How many of the PUBLISH packets just passed on the fast path took, and how many aedes parsed. */
  published(taken: number, parsed: number): void {
    this.#publishWork = Math.ceil((taken + PARSE_WORK * parsed) / (taken + parsed))
  }

  /** The broker looks at a QoS 1 or 2 message of `bytes`; false when the connection is gone. */
  see(bytes: number): boolean {
    if (this.destroyed) return false
    this.#unseen--
    this.#unseenBytes -= bytes
    return true
  }

  /** The log has the message, or refused it: its bytes are held no more. */
  settled(bytes: number): void {
    this.#pressure.release(1, bytes)
  }

  /** The ack of a message has left, or never will. */
  release(): void {
    this.#unacked--
    if (this.#blocked && this.#unacked <= this.#pressure.limits.maxUnacked >> 1) this.proceed()
  }

  /** The peer has not read what was written to it; 'drain' follows when it has. */
  get clogged(): boolean {
    return this.#outgoing.clogged
  }

  /** Sends PUBACK, in one write with the others of this turn. */
  acknowledge(messageId: number): void {
    if (this.destroyed) return
    if (!this.#acknowledging) {
      this.#acknowledging = true
      this.#outgoing.cork()
      process.nextTick(() => {
        this.#acknowledging = false
        this.uncork()
      })
    }
    this.#outgoing.puback(messageId)
  }

  receive(chunk: Buffer): void {
    this.spared = false
    if (this.#stopped || this.disconnecting || this.#ended || this.destroyed) return
    const backlog = this.#backlog
    this.#backlog = backlog === undefined ? chunk : Buffer.concat([backlog.subarray(this.#offset), chunk])
    this.#offset = 0
    this.proceed()
  }

  /** Passes on what may pass now. */
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
      // An incomplete header; its rest may never come.
      this.#backlog = ownCopy(chunk.subarray(at))
      this.#offset = 0
    }
    this.#countIncomplete(begun)
    if (this.destroyed) return
    if (at > start && !this.push(start === 0 && at === chunk.length ? chunk : chunk.subarray(start, at)))
      this.#full = true
  }

  /** Reads the header at `at`; false when its packet must wait, or the connection was closed. */
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
    const full = qos > 0 ? this.#pressure.full : type === PUBLISH ? this.#pressure.closed : this.#pressure.busy
    if (full) this.#pressure.wait(this)
    if (full || (qos > 0 && this.#unacked >= limits.maxUnacked)) {
      this.#blocked = true
      return false
    }
    if (type === PUBLISH && this.pace !== undefined) {
      const waitMs = this.pace.waitMs()
      if (waitMs > 0) {
        this.#blocked = true
        this.#restFor(waitMs)
        return false
      }
      this.pace.message()
    }
    this.#pressure.spend(type === PUBLISH ? this.#publishWork : PARSE_WORK)
    if (qos > 0) this.#owing = true
    else if (type === SUBSCRIBE || type === UNSUBSCRIBE) this.#filters = new FilterList(type)
    else if (type === DISCONNECT) this.disconnecting = true
    if (!this.#begun || type === UNSUBSCRIBE) this.#unanswered = true
    this.#begun = true
    return true
  }

  #restFor(ms: number): void {
    if (this.#rest !== undefined) return
    this.#pressure.metrics.boundHits.add('pace of a client')
    this.#rest = setTimeout(() => {
      this.#rest = undefined
      this.proceed()
    }, ms)
  }

  /** Counts the filters in the next `bytes`; false when they are too many and the connection was closed. */
  #mayRead(filters: FilterList, chunk: Buffer, at: number, bytes: number): boolean {
    filters.read(chunk, at, at + bytes)
    if (filters.count > this.#pressure.limits.maxFilters) {
      this.fail('too many filters')
      return false
    }
    if (bytes === this.#body) {
      this.#pressure.spend(PARSE_WORK * filters.count)
      this.#filters = undefined
    }
    return true
  }

  /** Called when the message is whole, or headers alone would use up the bytes that all connections share. */
  #owe(): void {
    this.#owing = false
    this.#unacked++
    this.#unseen++
    this.#unseenBytes += this.#length
    this.#pressure.take(this.#length)
  }

  /** `begun`: another packet is incomplete now. */
  #countIncomplete(begun: boolean): void {
    const { incomplete } = this.#pressure
    if (begun || this.#body === 0) incomplete.end(this)
    if (this.#body > 0) incomplete.hold(this, this.#length - this.#body)
  }

  /** `Incomplete` is over its bound, and the packet of this connection began first. */
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

  /** False when the caller should wait for 'drain'. */
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
    clearTimeout(this.#rest)
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
