import { Type } from 'typebox'
import type { Answer, StatusReader } from '../processor/contract/query.ts'
import type { Api } from './app.ts'
import { type Caller, callerOf, maySee, READS_DEVICES } from './caller.ts'
import { EXAMPLE_DEVICE, jsonAnswer, problemAnswers, problemExample } from './documentation.ts'
import { etagOf, isNoneMatch } from './etag.ts'
import type { Gate } from './gate.ts'
import type { Limits } from './limits.ts'
import { AtLeast, readDevice } from './past.ts'
import { ProblemError, problemOf } from './problem.ts'
import { type Projection, projectionOf } from './projection.ts'
import { DeviceId, Fields } from './schemas.ts'
import { freshnessMember, JSON_TYPE, openStatus, shownFreshness } from './splice.ts'
import { TextTurns } from './text-turns.ts'

export interface DeviceRoutes {
  readonly reader: StatusReader
  readonly single: Gate
  readonly many: Gate
  readonly limits: Limits
}

const WITH_FIELDS = Type.Object({ fields: Type.Optional(Fields) }, { additionalProperties: false })

/** Most devices asked of the reader at once: the bound on `maxAnswerBytes` is kept between the slices. */
const SLICE = 200

export function deviceRoutes(api: Api, { reader, single, many, limits }: DeviceRoutes): void {
  api.get(
    '/v1/devices/:deviceId',
    { schema: GET_DEVICE, config: READS_DEVICES, compress: false },
    async (request, reply) => {
      const { deviceId } = request.params
      const projection = projectionOf(request.query.fields)
      if (!maySee(callerOf(request), deviceId)) throw ProblemError.otherDevice(deviceId)
      const { status, freshness } = await single.run(() => readDevice(reader, deviceId, request.query.atLeast))
      if (status === undefined) {
        throw new ProblemError('unknown-device', `no telemetry of device ${deviceId} has been seen`, {
          freshness: shownFreshness(freshness),
        })
      }
      const { fields } = request.query
      const text = openStatus(status)
      const etag = etagOf(text)
      reply.header('etag', etag)
      const known = request.headers['if-none-match']
      if (known !== undefined && isNoneMatch(known, etag)) return reply.code(304).send(undefined)
      reply.header('content-type', JSON_TYPE)
      return `${fields === undefined ? text : projection(status)},${freshnessMember(freshness)}}`
    },
  )

  api.post(
    '/v1/devices/batch-get',
    { schema: BATCH_GET, config: READS_DEVICES, bodyLimit: limits.maxBodyBytes },
    async (request, reply) => {
      const { deviceIds } = request.body
      const projection = projectionOf(request.query.fields)
      const results = await many.run(() =>
        readBatch({ reader, caller: callerOf(request), projection, maxBytes: limits.maxAnswerBytes }, deviceIds),
      )
      reply.header('content-type', JSON_TYPE)
      return `{"results":[${results.join(',')}]}`
    },
  )
}

interface BatchReading {
  readonly reader: StatusReader
  readonly caller: Caller
  readonly projection: Projection
  /** Of the statuses that are read. */
  readonly maxBytes: number
}

async function readBatch(
  { reader, caller, projection, maxBytes }: BatchReading,
  deviceIds: readonly string[],
): Promise<string[]> {
  const results: string[] = []
  let bytes = 0
  const turns = new TextTurns()
  for (let from = 0; from < deviceIds.length; from += SLICE) {
    const slice = deviceIds.slice(from, from + SLICE)
    const seen = slice.filter((deviceId) => maySee(caller, deviceId))
    const answers = bytes > maxBytes ? seen.map(() => ANSWER_FULL) : await reader.getMany(seen)
    let next = 0
    for (let i = 0; i < slice.length; i++) {
      const deviceId = slice[i] as string
      const answer = maySee(caller, deviceId) ? (answers[next++] as Answer | Error) : ProblemError.otherDevice(deviceId)
      const full = !(answer instanceof Error) && bytes + (answer.status?.byteLength ?? 0) > maxBytes
      results.push(batchResult(deviceId, full ? ANSWER_FULL : answer, projection))
      const here = answer instanceof Error ? 0 : (answer.status?.byteLength ?? 0)
      bytes += here
      const turn = turns.spend(here)
      if (turn !== undefined) await turn
    }
  }
  return results
}

const ANSWER_FULL = new ProblemError('answer-too-large', 'this answer is full: ask for the device in another request')

function batchResult(deviceId: string, answer: Answer | Error, projection: Projection): string {
  if (answer instanceof Error) {
    const problem = problemOf(answer)
    if (problem === undefined) throw answer
    return JSON.stringify({ deviceId, error: problem.body() })
  }
  const freshness = freshnessMember(answer.freshness)
  if (answer.status === undefined) return `{"deviceId":"${deviceId}","found":false,${freshness}}`
  return `${projection(answer.status)},${freshness},"found":true}`
}

const DEVICE = Type.Union([Type.Ref('Device#'), Type.Ref('DevicePart#')])

const ETAG = { ETag: { type: 'string', description: 'Weak: of the status, but not of how fresh it is.' } }

const GET_DEVICE = {
  operationId: 'getDevice',
  summary: 'The last status of one device',
  description: 'With `If-None-Match` and the `ETag` of an earlier answer: 304 while the status is the same.',
  params: Type.Object({ deviceId: DeviceId }),
  querystring: Type.Object({ fields: Type.Optional(Fields), atLeast: AtLeast }, { additionalProperties: false }),
  headers: Type.Object({ 'if-none-match': Type.Optional(Type.String()) }),
  response: {
    200: { ...jsonAnswer('The last status.', DEVICE, EXAMPLE_DEVICE), headers: ETAG },
    304: Type.Unsafe<undefined>({ type: 'null', description: 'The status is the same, as of now.' }),
    ...problemAnswers('unknown-device', 'partition-unavailable', 'position-not-reached', 'overloaded'),
  },
}

const BATCH_GET = {
  operationId: 'batchGetDevices',
  summary: 'The last status of up to 1,000 devices',
  description:
    'One result per id, in the order of the ids; an id that is given twice is answered twice. What cannot be had now is an `error` in its place.',
  body: Type.Object(
    { deviceIds: Type.Array(DeviceId, { minItems: 1, maxItems: 1000 }) },
    { additionalProperties: false, examples: [{ deviceIds: ['truck-17', 'truck-18'] }] },
  ),
  querystring: WITH_FIELDS,
  response: {
    200: jsonAnswer('The results.', 'BatchResults', {
      results: [
        { ...EXAMPLE_DEVICE, found: true },
        { deviceId: 'truck-18', found: false, freshness: EXAMPLE_DEVICE.freshness },
        { deviceId: 'truck-19', error: problemExample('partition-unavailable') },
      ],
    }),
    ...problemAnswers('body-too-large', 'unsupported-media-type', 'overloaded'),
  },
}
