import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import type { Api } from './app.ts'
import { callerOf } from './caller.ts'
import { ProblemError } from './problem.ts'

const WINDOW_MS = 60_000
/** Callers counted; at the bound, one that was not seen for long is forgotten. */
const MAX_CALLERS = 10_000

/**
 * At most so many requests a minute of one caller, by the subject of its token or else by its address; one more is
 * answered 429. Routes that are open to anyone are not counted. Each process counts for itself. Before the routes.
 */
export async function limitRates(api: Api, perMinute: number): Promise<void> {
  api.addHook('onRoute', (route) => {
    if (route.config?.scope === null) route.config = { ...route.config, rateLimit: false }
  })
  await api.register(rateLimit, {
    max: perMinute,
    timeWindow: WINDOW_MS,
    cache: MAX_CALLERS,
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

/** `ip`: undefined when the client has gone; with a port when it is a proxy's word, and proxies may write that, too. */
function addressOf(ip: string | undefined = ''): string {
  const [, inBrackets, beforePort] = /^(?:\[(.*)\](?::\d+)?|([^:]*):\d+)$/.exec(ip) ?? []
  return normalizeIP(inBrackets ?? beforePort ?? ip)
}
