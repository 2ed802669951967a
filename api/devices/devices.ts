import { Type } from 'typebox'
import type { Answer, Copy, Freshness, PartitionInfo, StatusReader } from '../../processor/contract/query.ts'
import { type Position, parsePosition } from '../../processor/contract/record.ts'
import type { Limiter } from '../../processor/runtime/limiter.ts'
import { TextTurns } from '../../processor/runtime/turns.ts'
import type { Api } from '../app.ts'
import { type Caller, callerOf, maySee, READS_DEVICES } from '../auth/caller.ts'
import { freshnessMember, JSON_TYPE, openStatus, SplicedBytes, shownFreshness } from '../http/answer-text.ts'
import { Bodies } from '../http/body.ts'
import { etagOf, isKnown, READ_CONDITIONS } from '../http/conditions.ts'
import { SMALL_ANSWER_BYTES, type UnsentAnswers } from '../http/connections.ts'
import {
  EXAMPLE_COPY,
  EXAMPLE_DEVICE,
  emptyAnswer,
  jsonAnswer,
  problemAnswers,
  problemExample,
  type ResponseDoc,
} from '../http/documentation.ts'
import { ProblemError, problemOf } from '../http/problem.ts'
import type { Limits } from '../limits.ts'
import { type Projection, projectionOf } from './projection.ts'
import { DeviceId, Fields, ONE_DEVICE } from './schemas.ts'

/** Longest wait of a read for its position, ms. */
const AT_LEAST_MS = 2_000

export const AtLeast = Type.Optional(
  Type.String({
    pattern: '^(0|[1-9][0-9]{0,4})-(0|[1-9][0-9]{0,15})$',
    description:
      'The `position` of a write: the answer includes it, from whichever instance. It is waited for, for up to 2 s.',
    examples: ['6-41'],
  }),
)

/** Reads one device, from a copy that includes the record at `atLeast` when that is given. */
export function readDevice(reader: StatusReader, deviceId: string, atLeast: string | undefined): Promise<Answer> {
  if (atLeast === undefined) return reader.get(deviceId)
  return reader.getPast(positionOf(reader, deviceId, atLeast), deviceId, AT_LEAST_MS)
}

export function readProblems(): Record<string, ResponseDoc> {
  return problemAnswers(
    'unknown-device',
    'precondition-failed',
    'partition-unavailable',
    'position-not-reached',
    'overloaded',
  )
}

function positionOf(reader: StatusReader, deviceId: string, text: string): Position {
  const position = parsePosition(text)
  if (position === undefined) throw ProblemError.invalid([{ field: 'atLeast', message: 'is not a position' }])
  const partition = reader.partitionOf(deviceId)
  if (position.partition !== partition) {
    const message = `is a position of partition ${position.partition}, and device ${deviceId} lives in partition ${partition}`
    throw ProblemError.invalid([{ field: 'atLeast', message }])
  }
  return position
}

export interface DeviceRoutes {
  readonly reader: StatusReader
  readonly single: Limiter
  readonly many: Limiter
  readonly unsent: UnsentAnswers
  readonly limits: Limits
}

const WITH_FIELDS = Type.Object({ fields: Type.Optional(Fields) }, { additionalProperties: false })

/** Most devices asked of the reader at once. The bound on `maxAnswerBytes` is checked between these slices. */
const SLICE = 200

export function deviceRoutes(api: Api, { reader, single, many, unsent, limits }: DeviceRoutes): void {
  api.get(
    '/v1/devices/:deviceId',
    { schema: GET_DEVICE, config: READS_DEVICES, compress: false },
    async (request, reply) => {
      const { deviceId } = request.params
      const projection = projectionOf(request.query.fields)
      if (!maySee(callerOf(request), deviceId)) throw ProblemError.otherDevice(deviceId)
      const { status, freshness } = await single.run(() => readDevice(reader, deviceId, request.query.atLeast))
      if (status === undefined) throw ProblemError.unknownDevice(deviceId, { freshness: shownFreshness(freshness) })
      const { fields } = request.query
      const text = openStatus(status)
      const etag = etagOf(text)
      const known = isKnown(request.headers, etag)
      reply.header('etag', etag)
      if (known) return reply.code(304).send(undefined)
      if (text.length >= SMALL_ANSWER_BYTES) unsent.hold(text.length, reply.raw)
      reply.header('content-type', JSON_TYPE)
      return `${fields === undefined ? text : projection(status)},${freshnessMember(freshness)}}`
    },
  )

  const bodies = new Bodies()
  api.post(
    '/v1/devices/batch-get',
    { schema: BATCH_GET, config: READS_DEVICES, bodyLimit: limits.maxBodyBytes },
    async (request, reply) => {
      const { deviceIds } = request.body
      const { fields } = request.query
      const projection = fields === undefined ? undefined : projectionOf(fields)
      unsent.admit()
      const results = await many.run(() =>
        readBatch({ reader, caller: callerOf(request), projection, maxBytes: limits.maxAnswerBytes }, deviceIds),
      )
      unsent.hold(results.bytes, reply.raw)
      reply.header('content-type', JSON_TYPE)
      return results.toBuffer((length) => bodies.take(length, reply.raw))
    },
  )
}

interface BatchReading {
  readonly reader: StatusReader
  readonly caller: Caller
  /** Undefined: whole statuses. */
  readonly projection: Projection | undefined
  /** Bounds the bytes of the statuses that are read. */
  readonly maxBytes: number
}

async function readBatch(
  { reader, caller, projection, maxBytes }: BatchReading,
  deviceIds: readonly string[],
): Promise<BatchResults> {
  const results = new BatchResults(projection)
  let bytes = 0
  const turns = new TextTurns()
  for (let from = 0; from < deviceIds.length; from += SLICE) {
    const slice = deviceIds.slice(from, from + SLICE)
    const seen = caller.prefixes === undefined ? slice : slice.filter((deviceId) => maySee(caller, deviceId))
    const answers = bytes > maxBytes ? seen.map(() => ANSWER_FULL) : await reader.getMany(seen)
    let next = 0
    for (let i = 0; i < slice.length; i++) {
      const deviceId = slice[i] as string
      if (!maySee(caller, deviceId)) {
        results.addError(deviceId, ProblemError.otherDevice(deviceId))
        continue
      }
      const answer = answers[next++] as Answer | Error
      if (answer instanceof Error) {
        results.addError(deviceId, answer)
        continue
      }
      const here = answer.status === undefined ? 0 : answer.status.end - answer.status.start
      if (bytes + here > maxBytes) results.addError(deviceId, ANSWER_FULL)
      else results.add(deviceId, answer)
      bytes += here
      const turn = turns.spend(here)
      if (turn !== undefined) await turn
    }
  }
  return results
}

const ANSWER_FULL = new ProblemError('answer-too-large', 'this answer is full: ask for the device in another request')

/** Builds the body of the answer, result by result. */
class BatchResults {
  readonly #projection: Projection | undefined
  readonly #text = new SplicedBytes()
  /** Text after each status, by its freshness. */
  readonly #ends = new Map<Freshness, Buffer>()

  constructor(projection: Projection | undefined) {
    this.#projection = projection
    this.#text.add(RESULTS)
  }

  get bytes(): number {
    return this.#text.length
  }

  add(deviceId: string, { status, freshness }: Answer): void {
    if (status === undefined) {
      this.#addText(`{"deviceId":"${deviceId}","found":false,${freshnessMember(freshness)}}`)
      return
    }
    if (this.#projection === undefined) this.#text.addOpenStatus(status)
    else this.#text.add(Buffer.from(this.#projection(status)))
    let end = this.#ends.get(freshness)
    if (end === undefined) {
      end = Buffer.from(`,${freshnessMember(freshness)},"found":true},`)
      this.#ends.set(freshness, end)
    }
    this.#text.add(end)
  }

  /** Throws errors that are no problem of the device. */
  addError(deviceId: string, error: Error): void {
    const problem = problemOf(error)
    if (problem === undefined) throw error
    this.#addText(JSON.stringify({ deviceId, found: null, error: problem.body() }))
  }

  /** Needs at least one result. `take` returns a buffer of the length given. */
  toBuffer(take: (length: number) => Buffer): Buffer {
    this.#text.add(END)
    const whole = take(this.#text.length)
    this.#text.copyTo(whole)
    // Overwrites the comma after the last result.
    whole.set(BRACKET, whole.length - END.length - BRACKET.length)
    return whole
  }

  #addText(result: string): void {
    this.#text.add(Buffer.from(`${result},`))
  }
}

const RESULTS = Buffer.from('{"results":[')
const BRACKET = Buffer.from(']')
const END = Buffer.from('}')

const DEVICE = Type.Union([Type.Ref('Device#'), Type.Ref('DevicePart#')])

const ETAG = { ETag: { type: 'string', description: 'Weak: of the status, but not of how fresh it is.' } }

const GET_DEVICE = {
  operationId: 'getDevice',
  summary: 'The last status of one device',
  description:
    'With `If-None-Match` and the `ETag` of an earlier answer: 304 while the status is the same. Devices called `count`, `.` or `..` are read by `POST /v1/devices/batch-get`: the first is another path, and browsers resolve the others before they ask.',
  params: ONE_DEVICE,
  querystring: Type.Object({ fields: Type.Optional(Fields), atLeast: AtLeast }, { additionalProperties: false }),
  headers: READ_CONDITIONS,
  response: {
    200: { ...jsonAnswer('The last status.', DEVICE, EXAMPLE_DEVICE), headers: ETAG },
    304: emptyAnswer('The status is the same, as of now.'),
    ...readProblems(),
  },
}

const BATCH_GET = {
  operationId: 'batchGetDevices',
  summary: 'The last status of up to 1,000 devices',
  description:
    'One result per id, in the order of the ids; an id that is given twice is answered twice. What cannot be had now, or is not for this token, is an `error` in its place, and `found` is null.',
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
        { deviceId: 'truck-19', found: null, error: problemExample('partition-unavailable') },
      ],
    }),
    ...problemAnswers('body-too-large', 'unsupported-media-type', 'overloaded'),
  },
}

export function partitionRoutes(api: Api, reader: StatusReader, many: Limiter): void {
  api.get('/v1/partitions', { schema: GET_PARTITIONS, config: { scope: 'ops:read' } }, async () => {
    const partitions = await many.run(() => reader.partitions())
    return { partitions: partitions.map(partitionBody), totals: totals(partitions) }
  })
}

function partitionBody({ partition, owner, standbys }: PartitionInfo): object {
  return { partition, owner: owner === undefined ? null : copyBody(owner), standbys: standbys.map(copyBody) }
}

function copyBody({ instance, state, offset, changelogOffset, lag, devices, restore }: Copy): object {
  const body = { instance, state, offset, changelogOffset, lag: lag ?? null, devices: devices ?? null }
  return restore === undefined ? body : { ...body, restore: { ...restore, etaSeconds: restore.etaSeconds ?? null } }
}

function totals(partitions: readonly PartitionInfo[]): object {
  let owned = 0
  let lag: number | null = 0
  let devices: number | null = 0
  for (const { owner } of partitions) {
    if (owner?.state === 'running') owned++
    // A partition without an owner adds nothing.
    if (owner !== undefined) lag = lag === null || owner.lag === undefined ? null : lag + owner.lag
    devices = devices === null || owner?.devices === undefined ? null : devices + owner.devices
  }
  return { partitions: partitions.length, owned, lag, devices }
}

const GET_PARTITIONS = {
  operationId: 'getPartitions',
  summary: 'Who holds each partition, and how far each copy is',
  description: 'Of the whole log: a token that is for some devices is told of all, too.',
  querystring: Type.Object({}, { additionalProperties: false }),
  response: {
    200: jsonAnswer('All partitions.', 'Partitions', {
      partitions: [{ partition: 0, owner: EXAMPLE_COPY, standbys: [{ ...EXAMPLE_COPY, instance: 'tidemark-2' }] }],
      totals: { partitions: 1, owned: 1, lag: 0, devices: 125_000 },
    }),
    ...problemAnswers('partition-unavailable', 'overloaded'),
  },
}
