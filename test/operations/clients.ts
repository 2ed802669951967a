import { EventSource } from 'eventsource'
import type { Status } from '../../processor/contract/status.ts'
import { type Api, type Balanced, type Reply, type Request, servedBy } from './balanced.ts'

/**
 * A dashboard that keeps a set of devices from the changes, as the API says that a client does it. When a stream breaks it
 * connects again by itself, and the balancer takes it wherever it likes.
 */
export class Dashboard implements Disposable {
  readonly devices = new Map<string, Status>()
  readonly resets: string[] = []
  /** Who served each stream so far; undefined: none could be had. */
  readonly servedBy: (Api | undefined)[] = []
  readonly #url: string
  readonly #token: string
  #lastEventId = ''
  #source: EventSource | undefined

  constructor(url: string, token: string) {
    this.#url = url
    this.#token = token
    this.#connect()
  }

  #connect(): void {
    const source = new EventSource(`${this.#url}&lastEventId=${encodeURIComponent(this.#lastEventId)}`, {
      fetch: async (url, init) => {
        const headers = { ...init.headers, authorization: `Bearer ${this.#token}` }
        const response = await fetch(url, { ...init, headers })
        this.servedBy.push(servedBy(response))
        return response
      },
    })
    this.#source = source
    const on = (name: string, apply: (data: string) => void): void => {
      source.addEventListener(name, (event) => {
        if (event.lastEventId !== '') this.#lastEventId = event.lastEventId
        apply(event.data as string)
      })
    }
    const put = (data: string): void => {
      const status = JSON.parse(data) as Status
      this.devices.set(status.deviceId, status)
    }
    on('enter', put)
    on('change', put)
    on('leave', (data) => this.devices.delete((JSON.parse(data) as Status).deviceId))
    on('reset', (data) => {
      this.devices.clear()
      this.resets.push((JSON.parse(data) as { reason: string }).reason)
    })
    on('snapshot-end', () => {})
    source.addEventListener('error', () => {
      // An answer other than 200 ends an EventSource; what broke off is taken up again by itself.
      if (source.readyState === EventSource.CLOSED && this.#source === source) this.#connect()
    })
  }

  [Symbol.dispose](): void {
    const source = this.#source
    this.#source = undefined
    source?.close()
  }
}

/** Asks, and asks once more what failed; remembers both. */
export class Requester {
  /** Requests that were asked. */
  asked = 0
  /** What the first try came to, of requests that failed. */
  readonly failures: string[] = []
  /** And those that a second try did not mend. */
  readonly unmended: string[] = []
  /** How often each process answered. */
  readonly answers = new Map<Api, number>()
  readonly #balanced: Balanced
  readonly #token: string

  constructor(balanced: Balanced, token: string) {
    this.#balanced = balanced
    this.#token = token
  }

  /** The reply; undefined when the second try failed too. */
  async ask(path: string, request: Request = {}): Promise<Reply | undefined> {
    this.asked++
    for (const told of [this.failures, this.unmended]) {
      const what = `${request.method ?? 'GET'} ${path}`
      try {
        const reply = await this.#balanced.ask(path, { ...request, token: this.#token })
        if (reply.status === 200) {
          this.answers.set(reply.by as Api, (this.answers.get(reply.by as Api) ?? 0) + 1)
          return reply
        }
        told.push(`${what}: ${reply.status} by ${reply.by} ${reply.text.slice(0, 300)}`)
      } catch (error) {
        told.push(`${what}: ${String(error)} ${String((error as Error).cause)}`)
      }
    }
    return undefined
  }
}
