import rateLimit, { type FastifyRateLimitStore, normalizeIP } from '@fastify/rate-limit'
import type { Api } from '../app.ts'
import { keepRecent } from '../http/answer-text.ts'
import { ProblemError } from '../http/problem.ts'
import { callerOf } from './caller.ts'

const WINDOW_MS = 60_000
/** Callers counted; at the bound, one that was not seen for long is forgotten. */
const MAX_CALLERS = 10_000

/**
 * At most so many requests a minute of one caller, by the subject of its token or else by its address; one more is
 * answered 429. Routes that are open to anyone are not counted. Each process counts for itself. Before the routes.
 * `now`: ms, of a clock that nobody sets.
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
    // The caller is known by then.
    hook: 'preParsing',
    // A token's subject and an address are never taken for each other.
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
 * Requests of each caller within its minute. The plugin's own store goes by the time of day: once that was set back by an
 * hour, who had used up a minute would be refused for the hour.
 */
class Windows implements FastifyRateLimitStore {
  readonly #now: () => number
  /** The caller that was seen last stands last. */
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

/** `ip`: undefined when the client has gone; with a port when it is a proxy's word, and proxies may write that, too. */
function addressOf(ip: string | undefined = ''): string {
  const [, inBrackets, beforePort] = /^(?:\[(.*)\](?::\d+)?|([^:]*):\d+)$/.exec(ip) ?? []
  return normalizeIP(inBrackets ?? beforePort ?? ip)
}
