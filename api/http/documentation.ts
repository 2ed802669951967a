import swaggerUi from '@fastify/swagger-ui'
import { Type } from 'typebox'
import type { Api } from '../app.ts'
import type { Limits } from '../limits.ts'
import { blamed, PROBLEM_TYPE, PROBLEMS, ProblemError, type ProblemKind } from './problem.ts'

/** Describes an answer in the OpenAPI document: `schema.response` of a Fastify route. */
export interface ResponseDoc {
  readonly type?: 'null'
  readonly description: string
  readonly content?: Record<string, { schema: object; examples?: Record<string, { value: unknown }> }>
  readonly headers?: Record<string, object>
}

/** `schema` is a schema or the name of a component. */
export function jsonAnswer(description: string, schema: object | string, example: unknown): ResponseDoc {
  const described = typeof schema === 'string' ? Type.Ref(`${schema}#`) : schema
  return {
    description,
    content: { 'application/json': { schema: described, examples: { answer: { value: example } } } },
  }
}

/** An answer without a body. @fastify/swagger gives every other answer a media type, with or without content. */
export function emptyAnswer(description: string, headers?: Record<string, object>): ResponseDoc {
  return { type: 'null', description, ...(headers === undefined ? {} : { headers }) }
}

/** Any request can meet these, before its route is known. */
const EVERYWHERE: readonly ProblemKind[] = ['invalid-request', 'request-timeout', 'headers-too-large', 'internal-error']

/** The problems of a route and those of every route, by status. */
export function problemAnswers(...kinds: readonly ProblemKind[]): Record<string, ResponseDoc> {
  return withProblems({}, [...EVERYWHERE, ...kinds])
}

function withProblems(
  answers: Record<string, ResponseDoc>,
  kinds: readonly ProblemKind[],
): Record<string, ResponseDoc> {
  const all = { ...answers }
  for (const kind of kinds) {
    const [status, title] = PROBLEMS[kind]
    const known = all[status]
    const examples = { ...known?.content?.[PROBLEM_TYPE]?.examples, [kind]: { value: problemExample(kind) } }
    const titles = known === undefined ? [] : [known.description.slice(0, -1)]
    const headers = PROBLEM_HEADERS[status]
    all[status] = {
      description: `${[...titles, title].join(', or ')}.`,
      content: { [PROBLEM_TYPE]: { schema: Type.Ref('Problem#'), examples } },
      ...(headers === undefined ? {} : { headers }),
    }
  }
  return all
}

export const NEXT_LINK = {
  Link: { type: 'string', description: 'The next page, `rel="next"` (RFC 8288); absent on the last.' },
}

const RETRY_AFTER = {
  'Retry-After': { type: 'integer', format: 'int32', minimum: 1, description: 'Seconds after which to ask again.' },
}
const CHALLENGE = { 'WWW-Authenticate': { type: 'string', description: 'What the token lacks (RFC 6750 section 3).' } }
const PROBLEM_HEADERS: Readonly<Record<number, Record<string, object>>> = {
  401: CHALLENGE,
  403: CHALLENGE,
  429: RETRY_AFTER,
  503: RETRY_AFTER,
  415: { 'Accept-Encoding': { type: 'string', description: '`identity`, where the body had a content coding.' } },
  412: { ETag: { type: 'string', description: 'Of the device by now.' } },
}

/** In the order of the document. */
export const TAGS = [
  { name: 'Devices', description: 'What is known of devices, and what people say of them.' },
  { name: 'Operations', description: 'What runs the fleet: copies of partitions, dead letters, metrics.' },
  { name: 'Process', description: 'What anyone may ask a process.' },
]

/** Adds to each route what its scopes mean. Must be called before the routes are added. */
export function documentScopes(api: Api, enforced: boolean): void {
  api.addHook('onRoute', (route) => {
    const { scope } = route.config ?? {}
    if (scope === undefined) return
    if (scope === null) {
      route.schema = { tags: ['Process'], ...route.schema, ...(enforced ? { security: [] } : {}) }
      return
    }
    const needed = [scope].flat()
    const response = route.schema?.response as Record<string, ResponseDoc>
    const invalid = response[400] as ResponseDoc
    route.schema = {
      tags: [needed.includes('ops:read') ? 'Operations' : 'Devices'],
      ...route.schema,
      ...(enforced ? { security: [{ bearer: needed }] } : {}),
      response: {
        ...withProblems(response, ['unauthorized', 'forbidden', 'too-many-requests', 'keys-unavailable']),
        // A malformed Authorization header.
        400: { ...invalid, headers: CHALLENGE },
      },
    }
  })
}

const DETAILS: Readonly<Partial<Record<ProblemKind, object>>> = {
  'invalid-request': { detail: 'limit must be <= 1000', ...blamed('limit', 'must be <= 1000') },
  unauthorized: ofToken('the token is not accepted: it has expired'),
  'too-many-requests': { detail: 'more than 600 requests a minute' },
  forbidden: ofToken('the token lacks the scope devices:read'),
  'unknown-device': {
    detail: ProblemError.unknownDevice('truck-18', {}).message,
    freshness: exampleFreshness(),
  },
  'partition-unavailable': { detail: 'no copy of partition 5 can answer now: it is being restored' },
}

function ofToken(detail: string): object {
  return { detail, ...blamed('authorization', detail) }
}

export function problemExample(kind: ProblemKind): object {
  const [status, title] = PROBLEMS[kind]
  return { type: `urn:tidemark:problem:${kind}`, title, status, detail: title.toLowerCase(), ...DETAILS[kind] }
}

function exampleFreshness(): object {
  return { partition: 6, offset: 1042, lag: 0, servedBy: 'owner' }
}

export const EXAMPLE_DEVICE = {
  deviceId: 'truck-17',
  rev: 42,
  reported: {
    temperature: { value: 21.5, at: '2026-11-24T10:00:00.000Z' },
    'pos.lat': { value: 52.1, at: '2026-11-24T10:00:00.000Z' },
  },
  connectivity: { state: 'online', since: '2026-11-24T09:58:00.000Z', reason: 'connected', session: 7 },
  firstSeenAt: '2026-11-20T07:00:00.000Z',
  lastSeenAt: '2026-11-24T10:00:00.120Z',
  counters: { messages: 42, late: 0, duplicates: 0, skewed: 0 },
  attributes: { type: 'van', site: 'k1', tags: ['cold-chain'] },
  freshness: exampleFreshness(),
}

export const EXAMPLE_COPY = {
  instance: 'tidemark-1',
  state: 'running',
  offset: 1042,
  changelogOffset: 977,
  lag: 0,
  devices: 125_000,
}

export const BEARER = {
  type: 'http',
  scheme: 'bearer',
  bearerFormat: 'JWT',
  description: 'Scopes: `devices:read`, `devices:write`, `ops:read`.',
}

const DESCRIPTION = `The last status of every device of a fleet.

Every answer says how fresh it is. Errors are \`application/problem+json\` (RFC 9457); \`errors\` names the fields to
blame. Beside what each operation lists: an unknown path is answered with 404, a known path with another method with 405
and \`Allow\`, a method that HTTP does not know with 501, all as problems. \`HEAD\` is answered wherever \`GET\` is. Query
parameters that are not listed are refused under /v1.

Every answer has an \`X-Request-Id\`: the caller's, or one of our own. Where requests are limited, \`RateLimit-Limit\`,
\`RateLimit-Remaining\` and \`RateLimit-Reset\` say how many a caller has left for how many seconds; each process counts for
itself. Answers for many devices are compressed (br, gzip) for those who accept that.

Where a token is asked for, it is a JWT, sent as \`Authorization: Bearer …\` (RFC 6750). Its claim \`scope\` names what it is
for; a claim \`devices\`, an array of beginnings of device ids, narrows it to these devices: others are not in lists, counts
and streams, and are answered with 403 by id. What \`ops:read\` shows of partitions and of the process is of all devices.`

export interface ProcessLimits {
  readonly limits: Limits
  readonly maxAttributesBodyBytes: number
  /** Undefined: there are no streams. */
  readonly maxStreams: number | undefined
  /** Requests per minute of one caller. Undefined: no limit. */
  readonly perMinute: number | undefined
}

/** The description of the whole API in the document. */
export function descriptionOf({ limits, maxAttributesBodyBytes, maxStreams, perMinute }: ProcessLimits): string {
  const rows: readonly (readonly [what: string, most: string, beyond: string])[] = [
    ['request line and headers', bytes(limits.maxHeaderBytes), '431'],
    ['body', `${bytes(limits.maxBodyBytes)}; of attributes ${bytes(maxAttributesBodyBytes)}`, '413'],
    ['time for a request to arrive', seconds(limits.requestTimeoutMs), '408'],
    ['time for one question about the fleet', seconds(limits.searchMs), 'the answer says that it was cut short'],
    ['statuses in one answer', bytes(limits.maxAnswerBytes), 'a page ends early; an error for the rest of a batch'],
    ['connections', count(limits.maxConnections), 'closed at once'],
    ['reads of one device under way', count(limits.maxSingleReads), '503'],
    ['reads of many devices under way', count(limits.maxManyReads), '503'],
    ['questions about the fleet under way', count(limits.maxSearches), '503'],
    ['writes under way', count(limits.maxWrites), '503'],
    ['readings of dead letters under way', count(limits.maxLetterReads), '503'],
    ...(maxStreams === undefined ? [] : [['streams of changes', count(maxStreams), '503'] as const]),
    ['answers that clients have not taken', bytes(limits.maxUnsentBytes), '503'],
    ['requests of one caller', perMinute === undefined ? 'any' : `${count(perMinute)} a minute`, '429'],
  ]
  const table = rows.map((row) => `| ${row.join(' | ')} |`).join('\n')
  return `${DESCRIPTION}

**Limits of this process.** Each process has its own, and counts for itself: of N processes behind a balancer, N times as
much is taken.

| of one process | at most | beyond |
|---|---|---|
${table}`
}

function bytes(number: number): string {
  if (number % 1024 !== 0) return `${count(number)} bytes`
  return number % 1024 ** 2 === 0 ? `${count(number / 1024 ** 2)} MiB` : `${count(number / 1024)} KiB`
}

function seconds(ms: number): string {
  return `${ms / 1000} s`
}

function count(number: number): string {
  return number.toLocaleString('en-US')
}

/** Everything comes from this process, so that the page works without the internet and loads nothing else. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

/** Serves the document at /docs. */
export async function docsRoutes(api: Api): Promise<void> {
  await api.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: CONTENT_SECURITY_POLICY,
    theme: { title: 'Tidemark API' },
    // Hides the bar that explores other documents.
    uiConfig: {
      layout: 'BaseLayout',
      docExpansion: 'list',
      deepLinking: true,
      defaultModelsExpandDepth: 0,
      persistAuthorization: false,
    },
  })
}
