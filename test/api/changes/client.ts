import type { EventSink } from '../../../api/changes/event.ts'
import type { Status } from '../../../processor/contract/status.ts'
import type { Clock } from '../../../processor/runtime/pause.ts'
import { reportOf } from './changelog.ts'

/** Time that passes when it is told to. */
export class FakeClock implements Clock {
  #steady = 0
  /** What somebody has added to the time of day, ms. */
  set = 0
  readonly #timers = new Set<{ readonly at: number; readonly run: () => void }>()

  now(): number {
    return 1_800_000_000_000 + this.#steady + this.set
  }

  steady(): number {
    return this.#steady
  }

  after(ms: number, run: () => void): () => void {
    const timer = { at: this.#steady + ms, run }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  /** Runs what is due, in order of time, each at its time. */
  async pass(ms: number): Promise<void> {
    const end = this.#steady + ms
    await settled()
    for (;;) {
      const [next] = [...this.#timers].filter(({ at }) => at <= end).toSorted((a, b) => a.at - b.at)
      if (next === undefined) break
      this.#steady = Math.max(this.#steady, next.at)
      this.#timers.delete(next)
      next.run()
      await settled()
    }
    this.#steady = end
  }
}

/** What is under way without waiting for time has come to its end. */
export async function settled(): Promise<void> {
  for (let i = 0; i < 12; i++) await new Promise((resolve) => setImmediate(resolve))
}

export interface Event {
  readonly name: string
  readonly data: string
  /** When it came, as its clock had it. */
  readonly at: number
}

/**
 * A client that does as the API tells it: empties at `reset`, puts at `enter` and `change`, deletes at `leave`. It parses as
 * WHATWG HTML section 9.2.6 says, and keeps set and last id from one connection to the next.
 */
export class Client {
  readonly devices = new Map<string, number>()
  /** The same of a client that asks elsewhere too, and ignores what is older than what it has. */
  readonly newest = new Map<string, Status>()
  readonly events: Event[] = []
  lastEventId = ''
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  connect(): FakeSink {
    return new FakeSink((block) => this.#dispatch(block))
  }

  named(name: string): Event[] {
    return this.events.filter((event) => event.name === name)
  }

  /** The answer to a GET: it replaces what the client has, and adds nothing. */
  learn(status: Status): void {
    if (this.newest.has(status.deviceId)) this.newest.set(status.deviceId, status)
  }

  #renew(status: Status): void {
    const { rev, firstSeenAt } = this.newest.get(status.deviceId) ?? status
    if (status.firstSeenAt === firstSeenAt && status.rev < rev) return
    this.newest.set(status.deviceId, status)
  }

  #dispatch(block: string): void {
    let name = 'message'
    let data = ''
    for (const line of block.split('\n')) {
      const [field = '', ...rest] = line.split(':')
      const value = rest.join(':').replace(/^ /, '')
      if (field === 'event') name = value
      else if (field === 'data') data += value
      else if (field === 'id') this.lastEventId = value
    }
    if (data === '') return
    this.events.push({ name, data, at: this.#clock.now() })
    const body = JSON.parse(data) as Status
    if (name === 'reset') {
      this.devices.clear()
      this.newest.clear()
    } else if (name === 'enter' || name === 'change') {
      this.devices.set(body.deviceId, reportOf(body))
      this.#renew(body)
    } else if (name === 'leave') {
      this.devices.delete(body.deviceId)
      this.newest.delete(body.deviceId)
    }
  }
}

/** The events that reached the client, a line each. */
export function told(client: Client): string[] {
  return client.events.map(({ name, data }) => {
    const body = JSON.parse(data) as Status & { reason?: string; count?: number; deleted?: boolean }
    if (name === 'enter' || name === 'change') return `${name} ${body.deviceId} ${reportOf(body)}`
    if (name === 'leave') return `leave ${body.deviceId}${body.deleted ? ' deleted' : ''}`
    return `${name} ${body.reason ?? body.count}`
  })
}

/** A connection to a client that may stop reading; what it has not read when the connection breaks is lost. */
export class FakeSink implements EventSink {
  onDrain: () => void = () => {}
  onClose: () => void = () => {}
  stalled = false
  ended = false
  destroyed = false
  #wire = ''
  readonly #receive: (block: string) => void

  constructor(receive: (block: string) => void) {
    this.#receive = receive
  }

  get blocked(): boolean {
    return this.stalled && this.#wire !== ''
  }

  write(text: string): void {
    this.#wire += text
    if (!this.stalled) this.#deliver()
  }

  /** Characters that the client has not taken. */
  get waiting(): number {
    return this.#wire.length
  }

  end(text: string): void {
    this.write(text)
    this.ended = true
  }

  destroy(): void {
    this.destroyed = true
    this.onClose()
  }

  /** Takes one block off the wire. */
  read(): void {
    const drained = this.blocked
    const end = this.#wire.indexOf('\n\n') + 2
    if (end < 2) return
    const block = this.#wire.slice(0, end - 2)
    this.#wire = this.#wire.slice(end)
    this.#receive(block)
    if (drained && !this.blocked) this.onDrain()
  }

  resume(): void {
    const drained = this.blocked
    this.stalled = false
    this.#deliver()
    if (drained) this.onDrain()
  }

  /** The client goes, or the network does. */
  cut(): void {
    this.#wire = ''
    this.onClose()
  }

  #deliver(): void {
    const blocks = this.#wire.split('\n\n')
    this.#wire = blocks.pop() ?? ''
    for (const block of blocks) this.#receive(block)
  }
}
