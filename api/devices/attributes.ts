import { isUtf8 } from 'node:buffer'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import {
  type AttributesFault,
  attributesFault,
  MAX_ATTRIBUTES_BYTES,
  MAX_ATTRIBUTES_DEPTH,
} from '../../processor/contract/attributes.ts'
import { bounded } from '../../processor/contract/field.ts'
import { hasBackslashInName, type JsonObject } from '../../processor/contract/json.ts'
import { bufferOf } from '../../processor/contract/query.ts'
import { decodeStatus } from '../../processor/contract/status.ts'
import type { Limiter } from '../../processor/runtime/limiter.ts'
import type { Api } from '../app.ts'
import { callerOf, maySee, READS_DEVICES, WRITES_DEVICES } from '../auth/caller.ts'
import { freshnessField, openStatus, shownFreshness } from '../http/answer-text.ts'
import { etagOf, isKnown, MAX_WAIT_SECONDS, READ_CONDITIONS } from '../http/conditions.ts'
import { EXAMPLE_DEVICE, emptyAnswer, jsonAnswer, problemAnswers, type ResponseDoc } from '../http/documentation.ts'
import { blamed, ProblemError, type ProblemKind } from '../http/problem.ts'
import { MAX_ATTRIBUTES_BODY_BYTES } from '../limits.ts'
import { AtLeast, readDevice, readProblems } from './devices.ts'
import { AttributesBody, ONE_DEVICE } from './schemas.ts'
import { answerWrite, type Writing } from './write.ts'

const JSON_TYPE = 'application/json'
const MERGE_PATCH = 'application/merge-patch+json'
const PATCH_TYPES = [MERGE_PATCH, JSON_TYPE]

/** Code generators would make two types of one name, since the body has two media types and the schema no name. */
const WRITES_ATTRIBUTES = {
  ...WRITES_DEVICES,
  swaggerTransform: ({ schema, url }: { schema: object; url: string }) => ({
    schema: { ...schema, body: Type.Ref('Attributes#') },
    url,
  }),
}

/**
 * Routes that set attributes and delete devices. Writes go through the log, and the partition's owner decides on them.
 */
export function attributeRoutes(api: Api, writing: Writing, single: Limiter): void {
  api.get('/v1/devices/:deviceId/attributes', { schema: GET, config: READS_DEVICES }, async (request, reply) => {
    const deviceId = visible(request)
    const { status, freshness } = await single.run(() => readDevice(writing.reader, deviceId, request.query.atLeast))
    if (status === undefined) throw ProblemError.unknownDevice(deviceId, { freshness: shownFreshness(freshness) })
    const etag = etagOf(openStatus(status))
    const known = isKnown(request.headers, etag)
    reply.header('etag', etag).header('tidemark-freshness', freshnessField(freshness))
    if (known) return reply.code(304).send(undefined)
    return bounded(decodeStatus(bufferOf(status)).attributes) ?? {}
  })

  void api.register(async (scope: Api) => {
    parseNothing(scope)
    scope.delete('/v1/devices/:deviceId', { schema: DELETE, config: WRITES_DEVICES }, (request, reply) => {
      visible(request)
      return answerWrite(writing, { kind: 'deletion' }, request, reply)
    })
  })

  const change = (operation: 'replace' | 'merge', request: DeviceRequest, reply: FastifyReply) => {
    visible(request)
    const attributes = checked(request.body as JsonObject)
    return answerWrite(writing, { kind: 'attributes', operation, attributes }, request, reply)
  }
  void api.register(async (scope: Api) => {
    parseExactly(scope, [JSON_TYPE])
    scope.put(
      '/v1/devices/:deviceId/attributes',
      { schema: PUT, config: WRITES_ATTRIBUTES, bodyLimit: MAX_ATTRIBUTES_BODY_BYTES },
      (request, reply) => change('replace', request, reply),
    )
    await scope.register(async (patch: Api) => {
      parseExactly(patch, PATCH_TYPES, { 'accept-patch': PATCH_TYPES.join(', ') })
      patch.patch(
        '/v1/devices/:deviceId/attributes',
        { schema: PATCH, config: WRITES_ATTRIBUTES, bodyLimit: MAX_ATTRIBUTES_BODY_BYTES },
        (request, reply) => change('merge', request, reply),
      )
    })
  })
}

type DeviceRequest = FastifyRequest<{ Params: { deviceId: string } }>

function visible(request: DeviceRequest): string {
  const { deviceId } = request.params
  if (!maySee(callerOf(request), deviceId)) throw ProblemError.otherDevice(deviceId)
  return deviceId
}

/**
 * Replaces Fastify's parser, which refuses some names without naming them and turns invalid UTF-8 into U+FFFD.
 * `headers` belong to the answer to any other media type.
 */
function parseExactly(api: Api, types: string[], headers: Record<string, string> = {}): void {
  api.removeAllContentTypeParsers()
  api.addContentTypeParser<Buffer>(types, { parseAs: 'buffer' }, parseJson)
  const message = `must be ${types.join(' or ')}`
  api.addContentTypeParser('*', (_request, _body, done) => done(unsupported(message, headers)))
}

/** Clients name a media type without a body, too. An empty body counts as none. */
function parseNothing(api: Api): void {
  api.removeAllContentTypeParsers()
  api.addContentTypeParser<Buffer>(JSON_TYPE, { parseAs: 'buffer' }, (request, body, done) => {
    if (body.byteLength === 0) done(null)
    else parseJson(request, body, done)
  })
  api.addContentTypeParser<Buffer>('*', { parseAs: 'buffer' }, (_request, body, done) => {
    if (body.byteLength === 0) done(null)
    else done(unsupported(`must be ${JSON_TYPE}`))
  })
}

function unsupported(message: string, headers: Record<string, string> = {}): ProblemError {
  const errors = [{ field: 'content-type', message }]
  return new ProblemError('unsupported-media-type', `the content type ${message}`, { errors }, headers)
}

function parseJson(_request: FastifyRequest, body: Buffer, done: (error: Error | null, body?: unknown) => void): void {
  const invalid = (message: string) => done(ProblemError.invalid([{ field: 'body', message }]))
  if (body.byteLength === 0) return invalid('is empty')
  if (!isUtf8(body)) return invalid('is not UTF-8')
  const text = body.toString()
  if (hasBackslashInName(text)) return invalid('has a name with a backslash, which no attribute may have')
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    return invalid(`is not valid JSON: ${(error as Error).message}`)
  }
  done(null, json)
}

const FAULTS: Readonly<Record<AttributesFault, string>> = {
  'too-deep': `is nested deeper than ${MAX_ATTRIBUTES_DEPTH}`,
  'bad-number': 'is a number too large for JSON to keep',
  'bad-attribute-name': 'is no name that an attribute may have: it is empty, is __proto__ or needs an escape in JSON',
}

function checked(attributes: JsonObject): JsonObject {
  const found = attributesFault(attributes)
  if (found !== undefined) throw ProblemError.invalid([{ field: found.at || 'body', message: FAULTS[found.fault] }])
  const bytes = Buffer.byteLength(JSON.stringify(attributes))
  if (bytes <= MAX_ATTRIBUTES_BYTES) return attributes
  const message = `has ${bytes} bytes of JSON, and ${MAX_ATTRIBUTES_BYTES} are allowed`
  throw new ProblemError('attributes-too-large', `the body ${message}`, blamed('body', message))
}

const NO_QUERY = Type.Object({}, { additionalProperties: false })
const { attributes: EXAMPLE } = EXAMPLE_DEVICE

const CONDITIONS = Type.Object({
  'If-Match': Type.Optional(
    Type.String({
      description:
        'ETags of the device, or its `rev` alone: the write is applied only while the device is at one of them. The owner of the partition decides, in the order of the log, and the answer says what it decided.',
      examples: ['W/"42-2026-11-20T07:00:00.000Z"', '"42"'],
    }),
  ),
  'If-None-Match': Type.Optional(
    Type.String({
      description:
        '`*` alone, ETags are refused: 412 where there is the device, 404 where there is none, since only telemetry makes one.',
    }),
  ),
  Prefer: Type.Optional(
    Type.String({
      description: `\`wait=N\` (RFC 7240): wait up to N seconds, ${MAX_WAIT_SECONDS} at most, until the write is applied.`,
      examples: ['wait=2'],
    }),
  ),
})

const WRITE_HEADERS = {
  'Tidemark-Position': { type: 'string', description: 'Where the write is in the log; for `atLeast`.' },
  'Preference-Applied': {
    type: 'string',
    description: '`wait=N`, where that was preferred: how long it was, at most.',
  },
}

function accepted(): ResponseDoc {
  const body = jsonAnswer('The log has the write: it will be applied in its turn.', 'Written', { position: '6-41' })
  const location = { type: 'string', description: 'Where to read the device with the write applied.' }
  return { ...body, headers: { ...WRITE_HEADERS, Location: location } }
}

/** These statuses can also answer a write that is in the log. */
const DECIDED = [404, 412, 413, 504]

function writeProblems(...kinds: readonly ProblemKind[]): Record<string, ResponseDoc> {
  const answers = problemAnswers(
    'unknown-device',
    'precondition-failed',
    'body-too-large',
    ...kinds,
    'unsupported-media-type',
    'log-unavailable',
    'partition-unavailable',
    'overloaded',
    'outcome-unknown',
  )
  for (const status of DECIDED) {
    const answer = answers[status] as ResponseDoc
    answers[status] = { ...answer, headers: { ...WRITE_HEADERS, ...answer.headers } }
  }
  return answers
}

function refusedPatch(refused: ResponseDoc): ResponseDoc {
  const taken = { type: 'string', description: 'What is taken, where the body was of another type (RFC 5789).' }
  return { ...refused, headers: { ...refused.headers, 'Accept-Patch': taken } }
}

const CHANGED: Record<string, ResponseDoc> = {
  200: {
    ...jsonAnswer('It is applied: the status after it, or after later writes too.', 'Device', EXAMPLE_DEVICE),
    headers: { ...WRITE_HEADERS, ETag: { type: 'string', description: 'Of the device: changes with its `rev`.' } },
  },
  202: accepted(),
  204: emptyAnswer('It is applied, and there is nothing to show.', WRITE_HEADERS),
  ...writeProblems('attributes-too-large'),
}

const ATTRIBUTES_HEADERS = {
  ETag: { type: 'string', description: 'Of the device: changes with its `rev`.' },
  'Tidemark-Freshness': { type: 'string', description: 'How fresh the answer is (RFC 9651, a dictionary).' },
}

const GET = {
  operationId: 'getAttributes',
  summary: 'What people say of a device',
  description: 'With `If-None-Match` and the `ETag` of an earlier answer: 304 while the device is the same.',
  params: ONE_DEVICE,
  querystring: Type.Object({ atLeast: AtLeast }, { additionalProperties: false }),
  headers: READ_CONDITIONS,
  response: {
    200: {
      ...jsonAnswer('The attributes; empty when nothing is said.', 'Attributes', EXAMPLE),
      headers: ATTRIBUTES_HEADERS,
    },
    304: emptyAnswer('The device is the same, as of now.'),
    ...readProblems(),
  },
}

const PUT = {
  operationId: 'putAttributes',
  summary: 'Says anew what a device is',
  description:
    'The body becomes the attributes: any JSON object of up to 8 KiB. A device must have been heard of; only telemetry makes one.',
  params: ONE_DEVICE,
  querystring: NO_QUERY,
  headers: CONDITIONS,
  body: AttributesBody,
  response: CHANGED,
}

const PATCH = {
  operationId: 'patchAttributes',
  summary: 'Changes some of what is said of a device',
  description: 'JSON Merge Patch (RFC 7396): null removes a member. The result may have up to 8 KiB.',
  consumes: PATCH_TYPES,
  params: ONE_DEVICE,
  querystring: NO_QUERY,
  headers: CONDITIONS,
  body: AttributesBody,
  response: { ...CHANGED, 415: refusedPatch(CHANGED[415] as ResponseDoc) },
}

const DELETE = {
  operationId: 'deleteDevice',
  summary: 'Deletes a device, with all that is known of it',
  description:
    'A tombstone in the changelog. Telemetry that comes later makes the device anew, and its `rev` starts again at 1.',
  params: ONE_DEVICE,
  querystring: NO_QUERY,
  headers: CONDITIONS,
  response: {
    202: accepted(),
    204: emptyAnswer('It is deleted.', WRITE_HEADERS),
    ...writeProblems(),
  },
}
