import type { FastifyReply, FastifyRequest } from 'fastify'
import { MAX_ATTRIBUTES_BYTES } from '../../processor/contract/attributes.ts'
import { UnavailableError } from '../../processor/contract/errors.ts'
import type { DeviceWriter, PastAnswer, StatusReader } from '../../processor/contract/query.ts'
import { formatPosition, type Position } from '../../processor/contract/record.ts'
import { MAX_STATUS_BYTES } from '../../processor/contract/status.ts'
import { isVersion, type Outcome, type Write } from '../../processor/contract/write.ts'
import type { Limiter } from '../../processor/runtime/limiter.ts'
import { callerOf } from '../auth/caller.ts'
import { freshnessMember, JSON_TYPE, openStatus, shownFreshness, spliceStatus } from '../http/answer-text.ts'
import { etagOf, ifMatchOf, ifNoneMatchOf, preferredWait } from '../http/conditions.ts'
import { blamed, ProblemError } from '../http/problem.ts'

/** Longest wait of a conditional write for its decision when the client names none, ms. */
const DECISION_MS = 5_000

type Unconditional<T> = T extends unknown ? Omit<T, 'ifMatch'> : never

export interface Writing {
  readonly reader: StatusReader
  readonly writer: DeviceWriter
  /** Bounds the writes under way, waiting ones included. */
  readonly writes: Limiter
}

/**
 * Appends a write and answers. It answers 202 when the log has the write and the client asked for no more; for a
 * condition or a wait it answers with the owner's decision.
 */
export function answerWrite(
  { reader, writer, writes }: Writing,
  write: Unconditional<Write>,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<string> {
  const { deviceId } = request.params as { deviceId: string }
  const condition = ifMatchOf(request.headers['if-match'])
  const onlyAnew = ifNoneMatchOf(request.headers['if-none-match'])
  const waitSeconds = preferredWait(joined(request.headers.prefer))
  return writes.run(async () => {
    if (onlyAnew) throw await refusalAnew(reader, deviceId)
    // The write itself decides whether the device exists. A known device spares the wait for that.
    const heedless = condition === undefined && waitSeconds === undefined
    const known = heedless && (await reader.get(deviceId)).status !== undefined
    // No device matches a tag that is no version. Such tags alone leave the list empty.
    const ifMatch = condition === 'any' ? undefined : condition?.filter(isVersion)
    const position = await writer.write(deviceId, { ...write, ifMatch })
    reply.header('tidemark-position', formatPosition(position))
    if (waitSeconds !== undefined) reply.header('preference-applied', `wait=${waitSeconds}`)
    if (known) return accept(deviceId, position, reply)
    const withinMs = waitSeconds === undefined ? DECISION_MS : waitSeconds * 1000
    const answer = await decided(reader, deviceId, position, withinMs)
    if (answer?.outcome === undefined && condition !== undefined) throw undecided(position)
    if (answer?.outcome === undefined) return accept(deviceId, position, reply)
    if (answer.outcome !== 'applied') throw refusal(answer.outcome, deviceId, position, answer)
    if (heedless) return accept(deviceId, position, reply)
    const { status, freshness } = answer
    // The device was deleted, by this or a later write; or the caller may only write.
    if (status === undefined || write.kind === 'deletion' || !callerOf(request).scopes.has('devices:read')) {
      reply.code(204)
      return ''
    }
    reply.header('content-type', JSON_TYPE).header('etag', etagOf(openStatus(status)))
    return spliceStatus(status, freshnessMember(freshness))
  })
}

function joined(header: string | readonly string[] | undefined): string | undefined {
  return typeof header === 'string' ? header : header?.join(',')
}

/** Undefined when the decision cannot be learnt in time. */
async function decided(
  reader: StatusReader,
  deviceId: string,
  position: Position,
  withinMs: number,
): Promise<PastAnswer | undefined> {
  try {
    return await reader.getPast(position, deviceId, withinMs)
  } catch (error) {
    if (error instanceof UnavailableError) return undefined
    throw error
  }
}

function accept(deviceId: string, position: Position, reply: FastifyReply): string {
  const at = formatPosition(position)
  reply.code(202)
  reply.header('location', `/v1/devices/${deviceId}?atLeast=${at}`)
  reply.header('content-type', JSON_TYPE)
  return JSON.stringify({ position: at })
}

function undecided(position: Position): ProblemError {
  const at = formatPosition(position)
  const detail = `the write is in the log at ${at}, and whether its condition held is not known; read the device with atLeast=${at}`
  return new ProblemError('outcome-unknown', detail, { position: at })
}

/**
 * A write makes no device: for an existing one the condition is false, and for an unknown one the write has no effect.
 */
async function refusalAnew(reader: StatusReader, deviceId: string): Promise<ProblemError> {
  const { status, freshness } = await reader.get(deviceId)
  const members = { freshness: shownFreshness(freshness) }
  if (status === undefined) return ProblemError.unknownDevice(deviceId, members)
  const etag = etagOf(openStatus(status))
  const said = { ...members, ...blamed('if-none-match', 'holds for no device that is there') }
  return new ProblemError('precondition-failed', `device ${deviceId} is there, at ${etag}`, said, { etag })
}

function refusal(
  outcome: Exclude<Outcome, 'applied'>,
  deviceId: string,
  position: Position,
  { status, freshness }: PastAnswer,
): ProblemError {
  const members = { position: formatPosition(position), freshness: shownFreshness(freshness) }
  if (outcome === 'unknown-device') return ProblemError.unknownDevice(deviceId, members)
  if (outcome === 'stale') {
    const now = status === undefined ? 'is deleted by now' : `is at ${etagOf(openStatus(status))} by now`
    const detail = `device ${deviceId} was at another version than If-Match asks for, and ${now}`
    const said = { ...members, ...blamed('if-match', 'names another version') }
    return new ProblemError('precondition-failed', detail, said, status && { etag: etagOf(openStatus(status)) })
  }
  const [what, bytes] =
    outcome === 'attributes-too-large' ? ['attributes', MAX_ATTRIBUTES_BYTES] : ['status', MAX_STATUS_BYTES]
  const over = `take more than ${bytes} bytes`
  const said = { ...members, ...blamed('body', `would make the ${what} ${over}`) }
  return new ProblemError('attributes-too-large', `the ${what} would ${over}`, said)
}
