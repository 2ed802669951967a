import { EventSource } from 'eventsource'
import { FollowedDevices } from '../system/followed-devices.ts'
import { type Api, type Balanced, type Reply, type Request, servedBy } from './balanced.ts'

/**
 * A dashboard that keeps a set of devices from the changes, as the API says that a client does it. When a stream breaks it
 * connects again by itself, and the balancer takes it wherever it likes.
 */
export class Dashboard extends FollowedDevices implements Disposable {
  /** Who served each stream so far; undefined: none could be had. */
  readonly servedBy: (Api | undefined)[] = []
  readonly #url: string
  readonly #token: string
  #source: EventSource | undefined

  constructor(url: string, token: string) {
    super()
    this.#url = url
    this.#token = token
    this.connect()
  }

  /** From where it is. */
  connect(): void {
    const source = new EventSource(`${this.#url}&lastEventId=${encodeURIComponent(this.lastEventId)}`, {
      fetch: async (url, init) => {
        const headers = { ...init.headers, authorization: `Bearer ${this.#token}` }
        const response = await fetch(url, { ...init, headers })
        this.servedBy.push(servedBy(response))
        return response
      },
    })
    this.#source = source
    this.follow(source)
    source.addEventListener('error', () => {
      // An answer other than 200 ends an EventSource; what broke off is taken up again by itself.
      if (source.readyState === EventSource.CLOSED && this.#source === source) this.connect()
    })
  }

  /** It is told of nothing more. */
  disconnect(): void {
    const source = this.#source
    this.#source = undefined
    source?.close()
  }

  [Symbol.dispose](): void {
    this.disconnect()
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
