import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { SecureContextOptions } from 'node:tls'
import { constants } from 'node:zlib'
import type { FastifyCompressOptions } from '@fastify/compress'
import compress from '@fastify/compress'
import swagger from '@fastify/swagger'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyBaseLogger, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import Fastify from 'fastify'
import type { Logger } from 'pino'
import type { Registry } from 'prom-client'
import { Type } from 'typebox'
import type { DeviceWriter, StatusReader } from '../processor/contract/query.ts'
import type { ChangeFeed, LetterReader } from '../processor/contract/record.ts'
import type { Audit } from '../processor/runtime/audit.ts'
import type { Clock } from '../processor/runtime/pause.ts'
import { letAnyoneDoAll, requireScopes } from './auth/caller.ts'
import { limitRates } from './auth/rate-limit.ts'
import { requireTokens, type Tokens } from './auth/tokens.ts'
import { changesRoutes } from './changes/changes.ts'
import { CHANGES_COMPONENTS } from './changes/schemas.ts'
import { ChangeStreams } from './changes/streams.ts'
import { deadLetterRoutes } from './dead-letters/dead-letters.ts'
import { LETTER_COMPONENTS } from './dead-letters/schemas.ts'
import { attributeRoutes } from './devices/attributes.ts'
import { deviceRoutes, partitionRoutes } from './devices/devices.ts'
import { DEVICE_COMPONENTS } from './devices/schemas.ts'
import { JSON_TYPE } from './http/answer-text.ts'
import { refuseCodings } from './http/body.ts'
import { UnsentAnswers } from './http/connections.ts'
import {
  BEARER,
  descriptionOf,
  docsRoutes,
  documentScopes,
  jsonAnswer,
  problemAnswers,
  TAGS,
} from './http/documentation.ts'
import { healthRoutes } from './http/health.ts'
import { measureReads, RequestDurations } from './http/metrics.ts'
import { instanceOf, PROBLEM_TYPE, ProblemError, problemOf, refusingLimiter } from './http/problem.ts'
import { answerHeadAsGet, type NameOf, pathOf, queryFault, requestNames, requireLoopbackName } from './http/request.ts'
import { compileValidator } from './http/validation.ts'
import { answerBrokenRequest } from './http/wire.ts'
import {
  type ChangesLimits,
  DEFAULT_CHANGES_LIMITS,
  DEFAULT_LIMITS,
  type Limits,
  MAX_ATTRIBUTES_BODY_BYTES,
} from './limits.ts'
import { SEARCH_COMPONENTS } from './search/schemas.ts'
import { searchRoutes } from './search/search.ts'

export type Api = FastifyInstance<Server, IncomingMessage, ServerResponse, FastifyBaseLogger, TypeBoxTypeProvider>

export interface AppOptions {
  readonly reader: StatusReader
  readonly writer: DeviceWriter
  readonly letters: LetterReader
  /** Names the problems that make the process not ready; empty when it is ready. */
  readonly checks: () => Promise<readonly string[]>
  readonly registry: Registry
  readonly logger: Logger
  /** Without it the API offers no streams of changes. */
  readonly changes?: Changes
  /** Defaults: DEFAULT_LIMITS. */
  readonly limits?: Partial<Limits>
  readonly version?: string
  /** Begins the ids of requests that come without one. Each process has its own. */
  readonly requestIdPrefix?: string
  /** Requests per minute of one caller, counted in this process. Undefined: no limit. */
  readonly ratePerMinute?: number | undefined
  /** Proxies whose X-Forwarded-For is believed, as in Fastify's `trustProxy`. Undefined: none. */
  readonly trustedProxies?: string | undefined
  /** A monotonic clock, ms. */
  readonly now?: () => number
  /** Undefined: anyone may do everything. */
  readonly tokens?: Tokens | undefined
  /** Answers only requests to a name of this machine. */
  readonly forThisMachine?: boolean
  /** Undefined: plain HTTP. */
  readonly tls?: SecureContextOptions | undefined
  /** Default: none. */
  readonly audit?: Audit
}

interface Changes {
  readonly feed: ChangeFeed
  readonly clock: Clock
  /** A number from 0 to 1. */
  readonly random: () => number
  /** Defaults: DEFAULT_CHANGES_LIMITS. */
  readonly limits?: Partial<ChangesLimits>
}

/** Builds the HTTP application, ready for `inject()`. It does not listen. */
export async function buildApp(options: AppOptions): Promise<Api> {
  const { reader, writer, letters, checks, registry, logger } = options
  const { now = () => performance.now() } = options
  const limits = { ...DEFAULT_LIMITS, ...options.limits }
  const api = createFastify(options, limits, requestNames(options.requestIdPrefix ?? 'request'))
  api.setValidatorCompiler(compileValidator)
  // Schemas of answers only document: JSON.stringify drops and converts nothing.
  api.setSerializerCompiler(() => JSON.stringify)
  const durations = new RequestDurations(registry)
  const unknown = rememberRoutes(api)
  api.setNotFoundHandler((request, reply) => answerError(unknown(request), request, reply, logger))
  api.setErrorHandler((error, request, reply) => {
    // Fastify reads the body before it reports an unknown route. Then the body is not the problem.
    answerError(request.is404 ? unknown(request) : error, request, reply, logger)
  })
  // Fastify takes text beside JSON by default.
  api.removeContentTypeParser('text/plain')
  refuseCodings(api)

  const single = refusingLimiter('reads of one device', limits.maxSingleReads)
  const many = refusingLimiter('reads of many devices', limits.maxManyReads)
  const writes = refusingLimiter('writes', limits.maxWrites)
  const searches = refusingLimiter('questions about the fleet', limits.maxSearches)
  const letterReads = refusingLimiter('readings of dead letters', limits.maxLetterReads)
  const unsent = new UnsentAnswers(limits.maxUnsentBytes)
  measureReads(registry, { single, many, search: searches, letters: letterReads }, unsent)

  if (options.forThisMachine === true) requireLoopbackName(api)
  if (options.tokens === undefined) letAnyoneDoAll(api)
  else requireTokens(api, options.tokens)
  // An answer is stale at once. With tokens it is also for one caller only.
  const caching = options.tokens === undefined ? 'no-cache' : 'private, no-cache'
  api.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id).header('cache-control', caching)
    done()
  })
  if (options.audit !== undefined) auditRequests(api, options.audit)
  // The query is checked after the caller is known and counted, like every other part of a request.
  api.addHook('preValidation', (request, _reply, done) => {
    const wrong = queryFault(request.url)
    // Open routes take no query. The route's own check comes last, as it takes longest.
    done(wrong === undefined || !request.routeOptions.config.scope ? undefined : ProblemError.invalid([wrong]))
  })
  for (const component of COMPONENTS) api.addSchema(component)
  const changes = options.changes && {
    ...options.changes,
    limits: { ...DEFAULT_CHANGES_LIMITS, ...options.changes.limits },
  }
  const bounds = {
    limits,
    maxAttributesBodyBytes: MAX_ATTRIBUTES_BODY_BYTES,
    maxStreams: changes?.limits.maxStreams,
    perMinute: options.ratePerMinute,
  }
  await api.register(swagger, documentOptions(options, descriptionOf(bounds)))
  await api.register(compress, COMPRESSION)
  answerHeadAsGet(api)
  await api.register(async (docs: Api) => {
    durations.observeRoutes(docs)
    await docsRoutes(docs)
  })
  await api.register(async (routes: Api) => {
    durations.observeRoutes(routes)
    requireScopes(routes)
    if (options.ratePerMinute !== undefined) await limitRates(routes, options.ratePerMinute, now)
    documentScopes(routes, options.tokens !== undefined)
    searchRoutes(routes, { reader, searches, unsent, limits, now })
    deviceRoutes(routes, { reader, single, many, unsent, limits })
    attributeRoutes(routes, { reader, writer, writes }, single)
    if (changes !== undefined) changesRoutes(routes, new ChangeStreams({ ...changes, reader, registry, logger }))
    partitionRoutes(routes, reader, many)
    deadLetterRoutes(routes, { letters, reads: letterReads, unsent, limits })
    healthRoutes(routes, checks, registry)
    indexRoutes(routes)
  })
  durations.observeOthers(api)
  await api.ready()
  return api
}

const COMPONENTS = [...DEVICE_COMPONENTS, ...SEARCH_COMPONENTS, ...LETTER_COMPONENTS, ...CHANGES_COMPONENTS]

/** Compresses answers for clients that ask for it, except on routes that say `compress: false`. */
const COMPRESSION: FastifyCompressOptions = {
  encodings: ['br', 'gzip'],
  // Bytes. A smaller answer fits a packet anyway.
  threshold: 2048,
  // Bytes that are compressed at once, in well under a millisecond. A longer answer becomes a stream on other threads.
  syncThreshold: 16 * 1024,
  zlibOptions: { level: 4 },
  brotliOptions: { params: { [constants.BROTLI_PARAM_QUALITY]: 4 } },
  // A small body could expand to a huge one.
  globalDecompression: false,
}

/** Tells of writes, whatever came of them, and of callers that were refused. */
function auditRequests(api: Api, audit: Audit): void {
  api.addHook('onResponse', async ({ method, url, ip, id, caller, routeOptions }, { statusCode: status }) => {
    const { scope } = routeOptions.config
    const isWrite = scope === 'devices:write'
    const isRefused = status === 401 || status === 403 || status === 429
    if (!isWrite && !isRefused) return
    const facts = { name: caller?.subject, address: ip, method, path: instanceOf(url), status, request: id }
    audit(isRefused ? 'refuse' : 'write', facts)
  })
}

function createFastify(options: AppOptions, limits: Limits, genReqId: NameOf): Api {
  const { logger, trustedProxies, tls } = options
  const http = {
    maxHeaderSize: limits.maxHeaderBytes,
    headersTimeout: limits.requestTimeoutMs,
    connectionsCheckingInterval: Math.max(100, limits.requestTimeoutMs / 4),
  }
  const api = Fastify({
    // With a logger Fastify would make a child for each request. The error handler logs errors instead.
    logger: false,
    genReqId,
    trustProxy: trustedProxies ?? false,
    routerOptions: {
      // The schema of a device id refuses long ones with 400, and maxHeaderBytes bounds the length of a path.
      maxParamLength: limits.maxHeaderBytes,
    },
    ...(tls === undefined ? { http } : { https: { ...http, ...tls, handshakeTimeout: limits.requestTimeoutMs } }),
    requestTimeout: limits.requestTimeoutMs,
    connectionTimeout: limits.idleSocketTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    bodyLimit: limits.maxBodyBytes,
    // While the server closes, open connections still get answers, with `connection: close`.
    return503OnClosing: false,
    clientErrorHandler: (error, socket) => answerBrokenRequest(error, socket, genReqId, limits),
    frameworkErrors: (error, request, reply) => answerError(error, request, reply, logger),
  })
  api.server.maxConnections = limits.maxConnections
  return api.withTypeProvider<TypeBoxTypeProvider>()
}

function answerError(error: unknown, request: FastifyRequest, reply: FastifyReply, logger: Logger): void {
  let problem = problemOf(error, request.routeOptions.bodyLimit) ?? cutOff(error, request)
  if (problem === undefined) {
    logger.error(
      { err: error, requestId: request.id, method: request.method, url: request.url },
      'a request met an unexpected error',
    )
    problem = new ProblemError('internal-error', 'an unexpected error; the log of this process has it')
  }
  const body = JSON.stringify(problem.body(instanceOf(request.url)))
  // Sent as bytes: Fastify adds a charset to a text, and this type has none.
  reply
    .code(problem.status)
    .headers(problem.headers)
    .headers({ 'content-type': PROBLEM_TYPE, 'cache-control': 'no-store', 'x-request-id': request.id })
    .send(Buffer.from(body))
}

/** The client went in the middle of its body. Nobody reads the problem, but the fault is not ours. */
function cutOff(error: unknown, { raw }: FastifyRequest): ProblemError | undefined {
  if (raw.complete || (error as NodeJS.ErrnoException).code !== 'ECONNRESET') return undefined
  return ProblemError.invalid([{ field: 'body', message: 'is not whole' }])
}

/** Answers an unknown target with 405 when another method would do, else with 404. */
function rememberRoutes(api: Api): (request: { url: string; method: string }) => ProblemError {
  const routes: { path: RegExp; methods: string[] }[] = []
  api.addHook('onRoute', ({ url, method }) => {
    const path = new RegExp(`^${url.replaceAll('.', '\\.').replaceAll('*', '.*').replace(/:\w+/g, '[^/]+')}$`)
    routes.push({ path, methods: [method].flat() })
  })
  return ({ url, method }) => {
    const path = pathOf(url)
    const allowed = new Set(routes.filter((route) => route.path.test(path)).flatMap((route) => route.methods))
    // For a path with and without a final slash Fastify names the GET of one alone.
    if (allowed.has('HEAD')) allowed.add('GET')
    // A route that serves files was asked for a file that it lacks.
    if (allowed.size === 0 || allowed.has(method)) return ProblemError.unknownRoute()
    const allow = Array.from(allowed).sort().join(', ')
    return new ProblemError('method-not-allowed', `this path allows ${allow}`, {}, { allow })
  }
}

function documentOptions({ version = '0', tokens }: AppOptions, description: string): object {
  return {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Tidemark',
        version,
        description,
        license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
      },
      servers: [{ url: '/' }],
      tags: TAGS,
      // The document says outright that no token is asked for.
      ...(tokens === undefined ? { security: [] } : { components: { securitySchemes: { bearer: BEARER } } }),
    },
    refResolver: {
      buildLocalReference: (schema: { $id?: string }, _uri: unknown, _fragment: string, i: number): string =>
        schema.$id ?? `schema-${i}`,
    },
  }
}

const LINKS = {
  devices: '/v1/devices',
  partitions: '/v1/partitions',
  deadLetters: '/v1/dead-letters',
  metrics: '/metrics',
  openapi: '/openapi.json',
  docs: '/docs',
}

function indexRoutes(api: Api): void {
  let document: string | undefined
  api.get('/openapi.json', { schema: OPENAPI, config: { scope: null } }, async (_request, reply) => {
    document ??= JSON.stringify(api.swagger())
    reply.header('content-type', JSON_TYPE)
    return document
  })
  api.get('/', { schema: INDEX, config: { scope: null } }, async () => ({ name: 'tidemark', links: LINKS }))
}

const OPENAPI = {
  operationId: 'openapi',
  summary: 'This document',
  description: 'The contract of this process, made of the schemas that it validates requests by. `/docs` shows it.',
  response: {
    200: jsonAnswer('OpenAPI 3.1.', Type.Object({ openapi: Type.String() }), { openapi: '3.1.0' }),
    ...problemAnswers(),
  },
}

const INDEX = {
  operationId: 'index',
  summary: 'Where things are',
  description: 'The paths to begin with.',
  response: {
    200: jsonAnswer('Paths.', Type.Object({ name: Type.String(), links: Type.Record(Type.String(), Type.String()) }), {
      name: 'tidemark',
      links: LINKS,
    }),
    ...problemAnswers(),
  },
}
