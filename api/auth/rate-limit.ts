import rateLimit, { type FastifyRateLimitStore, normalizeIP } from '@fastify/rate-limit'
import type { Api } from '../app.ts'
import { keepRecent } from '../http/answer-text.ts'
import { ProblemError } from '../http/problem.ts'
import { callerOf } from './caller.ts'

const WINDOW_MS = 60_000
/** Callers counted. At the bound the one that was unseen the longest is forgotten. */
const MAX_CALLERS = 10_000

/**
 * Bounds the requests per minute of each caller, told apart by the subject of its token, else by its address; one more
 * gets 429. Open routes are not counted. Each process counts for itself. Must be called before the routes are added.
 * `now`: monotonic ms.
 */
export async function limitRates(api: Api, perMinute: number, now: () => number): Promise<void> {
  api.addHook('onRoute', (route) => {
    if (route.config?.scope === null) route.config = { ...route.config, rateLimit: false }
  })
  await api.register(rateLimit, {
    max: perMinute,
    timeWindow: WINDOW_MS,
    store: class extends Windows {
      constructor() {
        super(now)
      }
    },
    hook: 'preParsing',
    // A token's subject must not be taken for an address.
    keyGenerator: (request) => {
      const { subject } = callerOf(request)
      return subject === undefined ? `address ${addressOf(request.ip)}` : `subject ${subject}`
    },
    enableDraftSpec: true,
    errorResponseBuilder: (_request, { max }) =>
      new ProblemError('too-many-requests', `more than ${max} requests a minute`),
  })
}

type Counted = Parameters<FastifyRateLimitStore['incr']>[1]

/**
 * Counts the requests of each caller within its minute. The plugin's own store uses the time of day: a clock set back
 * by an hour would lock a caller out for that hour.
 */
class Windows implements FastifyRateLimitStore {
  readonly #now: () => number
  /** In the order in which callers were seen last. */
  readonly #windows = new Map<string, { count: number; readonly endsAt: number }>()

  constructor(now: () => number) {
    this.#now = now
  }

  incr(caller: string, counted: Counted, windowMs: number): void {
    const now = this.#now()
    let window = this.#windows.get(caller)
    if (window === undefined || window.endsAt <= now) window = { count: 0, endsAt: now + windowMs }
    window.count++
    keepRecent(this.#windows, caller, window, MAX_CALLERS)
    counted(null, { current: window.count, ttl: window.endsAt - now })
  }

  child(): this {
    return this
  }
}

/** `ip` is undefined when the client has gone. A proxy may add a port to it. */
function addressOf(ip: string | undefined = ''): string {
  const [, inBrackets, beforePort] = /^(?:\[(.*)\](?::\d+)?|([^:]*):\d+)$/.exec(ip) ?? []
  return normalizeIP(inBrackets ?? beforePort ?? ip)
}
