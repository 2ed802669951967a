import { EventSource } from 'eventsource'
import { FollowedDevices } from '../../system/followed-devices.ts'
import type { Api } from './asker.ts'
import type { History, Holding, Told } from './history.ts'

const EVENTS = ['enter', 'change', 'leave', 'reset'] as const
/** A stream is left for one of another process after so many events. */
const STAY_EVENTS = 30
const RETRY_MS = 50

/** Follows changes, now through the one API process and now through the other, and writes down all that it is told. */
export class Follower extends FollowedDevices implements Disposable {
  readonly name: string
  /** Streams that it had. */
  connections = 0
  readonly q: string | undefined
  readonly deviceId: string | undefined
  readonly #apis: readonly Api[]
  readonly #history: History
  #source: EventSource | undefined
  #left = STAY_EVENTS
  #retry: NodeJS.Timeout | undefined

  /** Of one device, or of those that match `q`. */
  constructor(apis: readonly Api[], history: History, of: { readonly q?: string; readonly deviceId?: string }) {
    super()
    this.#apis = apis
    this.#history = history
    this.q = of.q
    this.deviceId = of.deviceId
    this.name = `follower of ${of.deviceId ?? of.q ?? 'all'}`
    this.#connect(0)
  }

  #connect(turn: number): void {
    const path = this.deviceId === undefined ? '/v1/changes' : `/v1/devices/${this.deviceId}/changes`
    const q = this.q === undefined ? '' : `&q=${encodeURIComponent(this.q)}`
    const { port } = this.#apis[turn % this.#apis.length] as Api
    const last = encodeURIComponent(this.lastEventId)
    const source = new EventSource(`http://127.0.0.1:${port}${path}?snapshot=true${q}&lastEventId=${last}`)
    this.#source = source
    this.#left = STAY_EVENTS
    this.follow(source)
    source.addEventListener('open', () => this.connections++)
    source.addEventListener('error', () => {
      // What broke off is taken up again by itself; any other answer than 200 is the end of an EventSource.
      if (source.readyState === EventSource.CLOSED) this.#leave(source, turn)
    })
    for (const event of EVENTS) {
      source.addEventListener(event, ({ data }) => {
        this.#note(event, data as string)
        if (--this.#left === 0) this.#leave(source, turn)
      })
    }
  }

  #note(event: Told['event'], data: string): void {
    const { deviceId } = JSON.parse(data) as { deviceId?: string }
    const text = event === 'enter' || event === 'change' ? JSON.stringify(JSON.parse(data)) : undefined
    this.#history.told.push({ follower: this.name, q: this.q, connection: this.connections, event, deviceId, text })
  }

  #leave(source: EventSource, turn: number): void {
    if (this.#source !== source) return
    source.close()
    this.#retry = setTimeout(() => this.#connect(turn + 1), RETRY_MS)
  }

  get holding(): Holding {
    const devices = new Map(Array.from(this.devices, ([id, status]) => [id, JSON.stringify(status)]))
    return { holder: this.name, q: this.q, deviceId: this.deviceId, devices }
  }

  [Symbol.dispose](): void {
    const source = this.#source
    this.#source = undefined
    clearTimeout(this.#retry)
    source?.close()
  }
}
