import type { StatusProjection } from '../devices/projection.ts'
import { type Change, statusOf } from './change.ts'
import type { ChangelogFollower } from './changelog-follower.ts'
import { Coalescer, type Pending } from './coalescer.ts'
import { COMMENT, type EventName, type EventSink, eventText } from './event.ts'
import type { Entering } from './snapshot.ts'

/** Whether a stream's client has a device. `unknown`: an earlier stream may have told it. */
export type Member = 'in' | 'out' | 'unknown'

const CHUNK_BITS = 10
const CHUNK_BYTES = 2 ** CHUNK_BITS / 4
const IN = 1
const OUT = 2

/** What a stream's client has, two bits per device number: 256 KiB for a mebi of devices. */
export class Membership {
  readonly #chunks = new Map<number, Uint8Array>()
  /** State of the devices that this stream has not mentioned. */
  #others: Member
  readonly #numbers: { readonly first: number }
  #first: number

  constructor(others: Member, numbers: { readonly first: number }) {
    this.#others = others
    this.#numbers = numbers
    this.#first = numbers.first
  }

  /** A device without a number is always unknown. */
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

  /** Also undefined for numbers from before a renumbering, which makes earlier knowledge void. */
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
  readonly projection: StatusProjection | undefined
  /** Event id of the place that the client reaches once nothing waits. Undefined: none yet. */
  readonly position: () => string | undefined
  readonly told: (event: EventName, count: number) => void
  /** Called when more waits than may. */
  readonly full: (whose: 'slow-reader' | 'overloaded') => void
}

/** Writes to one client at a pace that both sides keep. */
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

  /** Whether the stream may read on by itself. */
  get hasRoom(): boolean {
    return !this.#sink.blocked && this.#coalescer.bytes < this.#following.limits.maxWaitingBytes / 2
  }

  /** Begins without knowing what the client has. */
  resume(): void {
    this.#drop()
    this.#membership = new Membership('unknown', this.#following.numbers)
  }

  /** Begins with a client that has nothing, after it was told `reset`. */
  reset(): void {
    this.#drop()
    this.#membership = new Membership('out', this.#following.numbers)
  }

  /** `matched`: the client must have the device. */
  take(change: Change, matched: boolean): void {
    // Nobody would ever release bytes that are counted now.
    if (this.#closed) return
    const { deviceId, number } = change
    const coalescer = this.#coalescer
    const before = coalescer.bytes
    if (matched || this.#membership.get(number) !== 'out') coalescer.put(change, matched)
    else coalescer.drop(deviceId)
    if (coalescer.bytes !== before) this.#count(coalescer.bytes - before)
    if (coalescer.has(deviceId)) this.#schedule(coalescer.dueOf(deviceId))
  }

  /** Sends statuses of devices that the client lacks, piece by piece as it takes them, before anything that waits. */
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

  /** Sends one event before anything that waits. */
  tell(name: EventName, data: object, id: string | undefined): void {
    this.#write([{ name, data: JSON.stringify(data) }], id)
  }

  /** Resolves when there is room, or when the writer is closed. */
  async room(): Promise<void> {
    while (!this.#closed && !this.hasRoom) await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

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
    // Changes that were read together are written together.
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

  /** `id` belongs to the last event: a client that is cut off earlier resumes before all of them. */
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
        // However little waits, it would wait for as long as the connection holds.
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

/** Takes devices from `from` on up to about `maxBytes`, at least one. */
function pieceOf(devices: readonly Entering[], from: number, maxBytes: number): readonly Entering[] {
  let bytes = 0
  let end = from
  while (end < devices.length && bytes < maxBytes) bytes += (devices[end++] as Entering).text.length
  return devices.slice(from, end)
}
