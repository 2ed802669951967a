import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { printQuery } from '../../processor/contract/search.ts'
import { Matcher } from '../../processor/search/language/match.ts'
import type { Api } from '../app.ts'
import { callerOf, maySee, READS_DEVICES } from '../auth/caller.ts'
import { statusProjectionOf } from '../devices/projection.ts'
import { Fields, ONE_DEVICE } from '../devices/schemas.ts'
import { problemAnswers } from '../http/documentation.ts'
import { ProblemError } from '../http/problem.ts'
import { Q, queryOf } from '../search/schemas.ts'
import { ResponseSink } from './event.ts'
import { MAX_POSITION } from './resume.ts'
import { EVENT_STREAM } from './schemas.ts'
import type { ChangeStreams, StreamRequest } from './streams.ts'

const EVENT_STREAM_TYPE = 'text/event-stream; charset=utf-8'

export function changesRoutes(api: Api, streams: ChangeStreams): void {
  // Streams would keep the server waiting for their connections to end.
  api.addHook('preClose', () => streams.close())

  api.get('/v1/changes', { schema: CHANGES, config: READS_DEVICES, compress: false }, async (request, reply) => {
    const { q, ...asked } = request.query
    return await stream(streams, request, reply, { subject: subjectOf(q), ...asked })
  })

  api.get(
    '/v1/devices/:deviceId/changes',
    { schema: DEVICE_CHANGES, config: READS_DEVICES, compress: false },
    async (request, reply) => {
      const { deviceId } = request.params
      if (!maySee(callerOf(request), deviceId)) throw ProblemError.otherDevice(deviceId)
      return await stream(streams, request, reply, { subject: { deviceId }, ...request.query })
    },
  )
}

/** Throws ProblemError with the position of the mistake in the query. */
function subjectOf(q: string | undefined): StreamRequest['subject'] {
  const query = queryOf(q)
  return { text: printQuery(query), matcher: query.root.kind === 'all' ? undefined : new Matcher(query) }
}

interface Asked {
  readonly subject: StreamRequest['subject']
  readonly fields?: string
  readonly snapshot?: boolean
  readonly lastEventId?: string
}

/** `x-accel-buffering` has nginx pass events on at once. A refused stream has no such header. */
const STREAM_HEADERS = { 'content-type': EVENT_STREAM_TYPE, 'cache-control': 'no-store', 'x-accel-buffering': 'no' }

async function stream(
  streams: ChangeStreams,
  request: FastifyRequest,
  reply: FastifyReply,
  { subject, fields, snapshot, lastEventId }: Asked,
): Promise<FastifyReply> {
  const projection = fields === undefined ? undefined : statusProjectionOf(fields)
  // A stream has no length to tell.
  if (request.method === 'HEAD') return reply.headers(STREAM_HEADERS).send(Readable.from([]))
  const header = request.headers['last-event-id']
  const asked = {
    subject,
    caller: callerOf(request),
    projection,
    snapshot: snapshot === true,
    // The header is newer: an EventSource sends it beside the parameters with which it once began.
    lastEventId: typeof header === 'string' ? header : lastEventId,
  }
  await streams.open(asked, () => {
    if (reply.raw.destroyed) return undefined
    reply.hijack()
    reply.headers(STREAM_HEADERS)
    reply.raw.writeHead(200, { ...(reply.getHeaders() as Record<string, string>), connection: 'close' })
    return new ResponseSink(reply.raw)
  })
  return reply
}

const PARAMETERS = {
  fields: Type.Optional(Fields),
  snapshot: Type.Optional(
    Type.Boolean({
      description: 'Whether a stream that begins anew begins with all that matches. Default false.',
    }),
  ),
  lastEventId: Type.Optional(
    Type.String({
      maxLength: MAX_POSITION,
      description: 'The id to resume after, for clients that cannot set `Last-Event-ID`; the header goes first.',
    }),
  ),
}

const HEADERS = Type.Object({
  'Last-Event-ID': Type.Optional(
    Type.String({
      description: 'The id to resume after, of this process or another. What is none is answered with `reset`.',
    }),
  ),
})

const PROBLEMS = ['partition-unavailable', 'overloaded'] as const

const CHANGES = {
  operationId: 'streamChanges',
  summary: 'What changes in the fleet, as Server-Sent Events',
  description: EVENT_STREAM.description,
  querystring: Type.Object({ q: Q, ...PARAMETERS }, { additionalProperties: false }),
  headers: HEADERS,
  response: { 200: EVENT_STREAM.answer, ...problemAnswers(...PROBLEMS) },
}

const DEVICE_CHANGES = {
  operationId: 'streamDeviceChanges',
  summary: 'What changes in one device, as Server-Sent Events',
  description: `As \`/v1/changes\`, for one device; one that is not known yet is waited for.`,
  params: ONE_DEVICE,
  querystring: Type.Object(PARAMETERS, { additionalProperties: false }),
  headers: HEADERS,
  response: { 200: EVENT_STREAM.answer, ...problemAnswers(...PROBLEMS, 'forbidden') },
}
