import type { StatusProjection } from '../devices/projection.ts'
import { type Change, statusOf } from './change.ts'
import type { ChangelogFollower } from './changelog-follower.ts'
import { Coalescer, type Pending } from './coalescer.ts'
import { COMMENT, type EventName, type EventSink, eventText } from './event.ts'
import type { Entering } from './snapshot.ts'

/** Whether the client of a stream has a device. `unknown`: what it was told before this stream is not known here. */
export type Member = 'in' | 'out' | 'unknown'

const CHUNK_BITS = 10
const CHUNK_BYTES = 2 ** CHUNK_BITS / 4
const IN = 1
const OUT = 2

/** What the client of one stream has, by the numbers of devices, two bits a device: a mebi of devices takes 256 KiB. */
export class Membership {
  readonly #chunks = new Map<number, Uint8Array>()
  /** Of devices that this stream has not told of. */
  #others: Member
  readonly #numbers: { readonly first: number }
  #first: number

  constructor(others: Member, numbers: { readonly first: number }) {
    this.#others = others
    this.#numbers = numbers
    this.#first = numbers.first
  }

  /** `number`: of the device; one that has none is never known. */
  get(number: number | undefined): Member {
    const place = this.#placeOf(number)
    if (place === undefined) return 'unknown'
    const bits = ((this.#chunks.get(place >> CHUNK_BITS)?.[this.#byte(place)] ?? 0) >> this.#shift(place)) & 3
    return bits === IN ? 'in' : bits === OUT ? 'out' : this.#others
  }

  set(number: number | undefined, member: 'in' | 'out'): void {
    const place = this.#placeOf(number)
    if (place === undefined) return
    let chunk = this.#chunks.get(place >> CHUNK_BITS)
    if (chunk === undefined) {
      if (member === this.#others) return
      chunk = new Uint8Array(CHUNK_BYTES)
      this.#chunks.set(place >> CHUNK_BITS, chunk)
    }
    const byte = this.#byte(place)
    const shift = this.#shift(place)
    chunk[byte] = ((chunk[byte] as number) & ~(3 << shift)) | ((member === 'in' ? IN : OUT) << shift)
  }

  /** Undefined also for a number of before all devices were numbered anew: what is known of them by such is forgotten. */
  #placeOf(number: number | undefined): number | undefined {
    const { first } = this.#numbers
    if (this.#first !== first) {
      this.#first = first
      this.#chunks.clear()
      this.#others = 'unknown'
    }
    return number === undefined || number < first ? undefined : number - first
  }

  #byte(place: number): number {
    return (place >> 2) & (CHUNK_BYTES - 1)
  }

  #shift(place: number): number {
    return (place & 3) << 1
  }
}

export interface StreamWriterOptions {
  readonly following: ChangelogFollower
  readonly sink: EventSink
  /** As StreamRequest has it. */
  readonly projection: StatusProjection | undefined
  /** The place up to which the client will have been told all once nothing waits, as an event id; undefined: none yet. */
  readonly position: () => string | undefined
  readonly told: (event: EventName, count: number) => void
  /** More waits than may. */
  readonly full: (whose: 'slow-reader' | 'overloaded') => void
}

/** Writes to one client what it is to be told, at a pace that both keep. */
export class StreamWriter {
  readonly #options: StreamWriterOptions
  readonly #following: ChangelogFollower
  readonly #sink: EventSink
  readonly #coalescer: Coalescer
  #membership: Membership
  #closed = false
  #lastWrite: number
  #flushing: (() => void) | undefined
  #flushAt = 0
  #beating: (() => void) | undefined
  #waiting: (() => void)[] = []

  constructor(options: StreamWriterOptions) {
    this.#options = options
    this.#following = options.following
    this.#sink = options.sink
    const { clock, limits, numbers } = options.following
    this.#membership = new Membership('out', numbers)
    this.#lastWrite = clock.steady() - limits.writeMs
    this.#coalescer = new Coalescer(limits.perDeviceMs)
    options.sink.onDrain = () => this.#flush()
    this.#beat()
  }

  get pending(): Coalescer {
    return this.#coalescer
  }

  /** There is room for more of what the stream reads by itself. */
  get hasRoom(): boolean {
    return !this.#sink.blocked && this.#coalescer.bytes < this.#following.limits.maxWaitingBytes / 2
  }

  /** What the client has is not known. */
  resume(): void {
    this.#drop()
    this.#membership = new Membership('unknown', this.#following.numbers)
  }

  /** The client has nothing, once it has been told `reset`. */
  reset(): void {
    this.#drop()
    this.#membership = new Membership('out', this.#following.numbers)
  }

  /** `matched`: the client is to have the device. */
  take(change: Change, matched: boolean): void {
    // What is counted now nobody would ever take back.
    if (this.#closed) return
    const { deviceId, number } = change
    const coalescer = this.#coalescer
    const before = coalescer.bytes
    if (matched || this.#membership.get(number) !== 'out') coalescer.put(change, matched)
    else coalescer.drop(deviceId)
    if (coalescer.bytes !== before) this.#count(coalescer.bytes - before)
    if (coalescer.has(deviceId)) this.#schedule(coalescer.dueOf(deviceId))
  }

  /** Statuses of devices that the client has not, whatever waits: piece by piece, as it takes them. */
  async enter(devices: readonly Entering[]): Promise<void> {
    let left = bytesOf(devices)
    this.#count(left)
    for (let from = 0; from < devices.length; ) {
      await this.room()
      if (this.#closed) break
      const piece = pieceOf(devices, from, this.#following.limits.writeBytes)
      from += piece.length
      this.#write(piece.map(({ deviceId, text }) => ({ name: 'enter', data: this.#shown(deviceId, text) })))
      for (const { number } of piece) this.#membership.set(number, 'in')
      const written = bytesOf(piece)
      left -= written
      this.#count(-written)
    }
    this.#count(-left)
  }

  /** One event, whatever waits. */
  tell(name: EventName, data: object, id: string | undefined): void {
    this.#write([{ name, data: JSON.stringify(data) }], id)
  }

  /** Resolves when `hasRoom`, or the outlet is closed. */
  async room(): Promise<void> {
    while (!this.#closed && !this.hasRoom) await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  /** Nothing more is written. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#drop()
    this.#flushing?.()
    this.#beating?.()
    this.#release()
  }

  #drop(): void {
    this.#following.waitingBytes -= this.#coalescer.bytes
    this.#coalescer.clear()
  }

  #count(bytes: number): void {
    const { limits } = this.#following
    this.#following.waitingBytes += bytes
    if (bytes < 0) return
    if (this.#coalescer.bytes > limits.maxWaitingBytes) this.#options.full('slow-reader')
    else if (this.#following.waitingBytes > limits.maxWaitingBytesInAll) this.#options.full('overloaded')
  }

  #schedule(dueAt: number | undefined): void {
    if (dueAt === undefined || this.#sink.blocked) return
    const { clock, limits } = this.#following
    const now = clock.steady()
    const at = Math.max(now, dueAt, this.#lastWrite + limits.writeMs)
    if (this.#flushing !== undefined && this.#flushAt <= at) return
    this.#flushing?.()
    this.#flushAt = at
    // Not at once: what has been read together is written together.
    this.#flushing = clock.after(at - now, () => {
      this.#flushing = undefined
      this.#flush()
    })
  }

  #flush(): void {
    if (this.#closed || this.#sink.blocked) return
    const { clock, limits } = this.#following
    const now = clock.steady()
    const before = this.#coalescer.bytes
    const events: { name: EventName; data: string }[] = []
    for (const pending of this.#coalescer.take(now, limits.writeBytes)) {
      const event = this.#eventOf(pending)
      if (event === undefined) continue
      events.push(event)
      this.#coalescer.tell(pending.deviceId, now)
    }
    this.#following.waitingBytes -= before - this.#coalescer.bytes
    if (events.length > 0) this.#write(events, this.#options.position())
    this.#schedule(this.#coalescer.dueAt())
    if (this.hasRoom) this.#release()
  }

  #eventOf({ deviceId, number, text, deleted }: Pending): { name: EventName; data: string } | undefined {
    const member = this.#membership.get(number)
    if (text !== undefined) {
      this.#membership.set(number, 'in')
      return { name: member === 'in' ? 'change' : 'enter', data: this.#shown(deviceId, text) }
    }
    if (member === 'out') return undefined
    this.#membership.set(number, 'out')
    return { name: 'leave', data: JSON.stringify({ deviceId, deleted }) }
  }

  #shown(deviceId: string, text: string): string {
    const { projection } = this.#options
    return projection === undefined ? text : projection(statusOf(deviceId, text))
  }

  /** `id`: of the last event; a client that is cut off before it resumes from before all of them. */
  #write(events: readonly { readonly name: EventName; readonly data: string }[], id?: string): void {
    if (events.length === 0) return
    let text = ''
    for (let i = 0; i < events.length; i++) {
      const { name, data } = events[i] as (typeof events)[number]
      text += eventText(name, data, i === events.length - 1 ? id : undefined)
      this.#options.told(name, 1)
    }
    this.#lastWrite = this.#following.clock.steady()
    this.#sink.write(text)
  }

  #beat(): void {
    const { clock, limits } = this.#following
    this.#beating = clock.after(limits.heartbeatMs, () => {
      const quietMs = clock.steady() - this.#lastWrite
      if (this.#sink.blocked) {
        // However little waits for it, it would for as long as the connection holds.
        if (quietMs >= limits.maxBlockedMs) return this.#options.full('slow-reader')
      } else if (quietMs >= limits.heartbeatMs / 2) {
        this.#tellPosition()
      }
      this.#beat()
    })
  }

  #tellPosition(): void {
    const id = this.#options.position()
    if (id !== undefined) return this.#write([{ name: 'position', data: '{}' }], id)
    this.#lastWrite = this.#following.clock.steady()
    this.#sink.write(COMMENT)
  }

  #release(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }
}

function bytesOf(devices: readonly Entering[]): number {
  return devices.reduce((sum, { text }) => sum + text.length, 0)
}

/** From `from` on, what has about `maxBytes`; one device at least. */
function pieceOf(devices: readonly Entering[], from: number, maxBytes: number): readonly Entering[] {
  let bytes = 0
  let end = from
  while (end < devices.length && bytes < maxBytes) bytes += (devices[end++] as Entering).text.length
  return devices.slice(from, end)
}
