import { RetryableError, UnavailableError } from '../../processor/contract/errors.ts'
import type { Freshness } from '../../processor/contract/query.ts'
import { Limiter } from '../../processor/runtime/limiter.ts'

/** HTTP status and title of each kind. The title never changes (RFC 9457 section 3.1.3). */
export const PROBLEMS = {
  'invalid-request': [400, 'Invalid request'],
  unauthorized: [401, 'Unauthorized'],
  forbidden: [403, 'Forbidden'],
  'unknown-device': [404, 'Unknown device'],
  'unknown-route': [404, 'Unknown route'],
  'method-not-allowed': [405, 'Method not allowed'],
  'request-timeout': [408, 'Request timeout'],
  'body-too-large': [413, 'Body too large'],
  'precondition-failed': [412, 'Precondition failed'],
  'answer-too-large': [413, 'Answer too large'],
  'attributes-too-large': [413, 'Attributes too large'],
  'unsupported-media-type': [415, 'Unsupported media type'],
  'range-not-satisfiable': [416, 'Range not satisfiable'],
  'too-many-requests': [429, 'Too many requests'],
  'headers-too-large': [431, 'Headers too large'],
  'internal-error': [500, 'Internal error'],
  'not-implemented': [501, 'Not implemented'],
  'partition-unavailable': [503, 'Partition unavailable'],
  'not-ready': [503, 'Not ready'],
  'keys-unavailable': [503, 'Keys unavailable'],
  overloaded: [503, 'Overloaded'],
  'log-unavailable': [503, 'Log unavailable'],
  'position-not-reached': [503, 'Position not reached'],
  'outcome-unknown': [504, 'Outcome unknown'],
} as const satisfies Record<string, readonly [status: number, title: string]>

export type ProblemKind = keyof typeof PROBLEMS

/** One wrong part of a request: a path or query parameter, a header, or a place in the body. */
export interface FieldError {
  readonly field: string
  readonly message: string
  /** Index of the first wrong character, from 0, in UTF-16 code units. */
  readonly position?: number
}

/** The body of an error answer: RFC 9457, media type `application/problem+json`. */
export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly instance?: string
  readonly errors?: readonly FieldError[]
  readonly freshness?: Omit<Freshness, 'changelog'>
  readonly position?: string
}

type Members = Pick<Problem, 'errors' | 'freshness' | 'position'>

export const PROBLEM_TYPE = 'application/problem+json'

/** An error that is an answer. */
export class ProblemError extends Error {
  readonly kind: ProblemKind
  readonly headers: Readonly<Record<string, string>>
  readonly members: Members

  constructor(
    kind: ProblemKind,
    detail: string,
    members: Members = {},
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(detail)
    this.name = 'ProblemError'
    this.kind = kind
    this.members = members
    this.headers = headers
  }

  static otherDevice(deviceId: string): ProblemError {
    const header = 'Bearer realm="tidemark", error="insufficient_scope", error_description="it is for other devices"'
    const members = blamed('deviceId', 'begins with nothing that the token is for')
    const headers = { 'www-authenticate': header }
    return new ProblemError('forbidden', `the token is not for device ${deviceId}`, members, headers)
  }

  /** A deleted device leaves no trace, so it is unknown, too. */
  static unknownDevice(deviceId: string, members: Members): ProblemError {
    const detail = `device ${deviceId} is not known: it has sent nothing yet, or nothing since it was deleted`
    return new ProblemError('unknown-device', detail, members)
  }

  static overloaded(detail: string): ProblemError {
    return new ProblemError('overloaded', detail, {}, { 'retry-after': '1' })
  }

  static unknownRoute(): ProblemError {
    return new ProblemError('unknown-route', 'there is nothing at this path; see /openapi.json')
  }

  static invalid(errors: readonly FieldError[]): ProblemError {
    const detail = errors.map(({ field, message }) => `${field} ${message}`).join('; ')
    return new ProblemError('invalid-request', detail, { errors })
  }

  get status(): number {
    return PROBLEMS[this.kind][0]
  }

  body(instance?: string): Problem {
    const [status, title] = PROBLEMS[this.kind]
    const head = { type: `urn:tidemark:problem:${this.kind}`, title, status, detail: this.message }
    return instance === undefined ? { ...head, ...this.members } : { ...head, instance, ...this.members }
  }
}

/** Refuses work beyond `limit` with 503 at once. A queue would only delay everyone. */
export function refusingLimiter(what: string, limit: number): Limiter {
  return new Limiter(limit, { ms: 0, over: () => ProblemError.overloaded(`${limit} ${what} are under way`) })
}

export function blamed(field: string, message: string): Members {
  return { errors: [{ field, message }] }
}

/** Errors of Fastify and its plugins that a client can cause, by code. `bodyLimit`: bytes, of the route. */
const FASTIFY_PROBLEMS: Readonly<Record<string, (bodyLimit: number | undefined) => ProblemError>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () =>
    new ProblemError(
      'unsupported-media-type',
      'the body must be application/json',
      blamed('content-type', 'must be application/json'),
    ),
  FST_ERR_CTP_BODY_TOO_LARGE: (bodyLimit) => {
    const message = `has more than the ${bodyLimit} bytes that are allowed`
    return new ProblemError('body-too-large', `the body ${message}`, blamed('body', message))
  },
  FST_ERR_CTP_EMPTY_JSON_BODY: () => ProblemError.invalid([{ field: 'body', message: 'is empty' }]),
  FST_ERR_CTP_INVALID_JSON_BODY: () => ProblemError.invalid([{ field: 'body', message: 'is not valid JSON' }]),
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: () =>
    ProblemError.invalid([{ field: 'content-length', message: 'is not the length of the body' }]),
  FST_STATIC_FORBIDDEN_PATH: () => ProblemError.unknownRoute(),
  FST_ERR_BAD_URL: () => ProblemError.invalid([{ field: 'path', message: 'has a malformed percent-encoding' }]),
}

/**
 * Returns the answer to `error`. Undefined: neither the request nor a known state is the cause, so it is a defect.
 * `bodyLimit`: see FASTIFY_PROBLEMS.
 */
export function problemOf(error: unknown, bodyLimit?: number): ProblemError | undefined {
  if (error instanceof ProblemError) return error
  if (error instanceof UnavailableError) {
    const retryAfter = String(Math.max(1, Math.ceil(error.retryAfterSeconds)))
    const kind = error.code === 'POSITION_NOT_REACHED' ? 'position-not-reached' : 'partition-unavailable'
    return new ProblemError(kind, error.message, {}, { 'retry-after': retryAfter })
  }
  if (error instanceof RetryableError) {
    const detail = `it is not known whether the log has the write, which may be asked for again: ${error.message}`
    return new ProblemError('log-unavailable', detail, {}, { 'retry-after': '1' })
  }
  if (!(error instanceof Error)) return undefined
  if ('code' in error) return FASTIFY_PROBLEMS[String(error.code)]?.(bodyLimit)
  return 'statusCode' in error ? fileProblem(error) : undefined
}

/** Translates the file plugin's verdict on the conditions and range of a request. */
function fileProblem({ statusCode, headers }: { statusCode?: unknown; headers?: unknown }): ProblemError | undefined {
  if (statusCode === 412) return new ProblemError('precondition-failed', 'the file is another by now')
  if (statusCode !== 416) return undefined
  const { 'Content-Range': range } = (headers ?? {}) as Record<string, string>
  return new ProblemError(
    'range-not-satisfiable',
    'the file has no such range',
    {},
    range === undefined ? {} : { 'content-range': range },
  )
}

/** Characters of the longest `instance`. A longer path is cut. */
const MAX_INSTANCE = 512

/**
 * Turns the path of a request target into the `instance` member, which must be a URI reference (RFC 9457 section
 * 3.1.5).
 */
export function instanceOf(target: string): string {
  const path = target.split(/[?#]/, 1)[0] as string
  return path
    .slice(0, MAX_INSTANCE)
    .replace(/%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~!$&'()*+,;=:@/%]/g, (c) =>
      c === '%' || c.charCodeAt(0) > 0xff ? '%25' : `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
    )
}
