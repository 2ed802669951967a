import { type ErrorCode, TidemarkError, UnavailableError } from './errors.ts'
import { viewOf } from './json.ts'
import { type Answer, bufferOf, type Copy, type Freshness, type Listing, type PastAnswer, type Slice } from './query.ts'
import type { Position } from './record.ts'
import type { Outcome } from './write.ts'

/**
 * The wire format between an api process and a processor, over HTTP/1.1: questions are JSON, answers a JSON head and then the
 * bytes of the statuses as they are stored, which nobody parses on the way.
 */
export const READ_PATH = '/query/v1/read'
export const LIST_PATH = '/query/v1/list'
export const PAST_PATH = '/query/v1/past'
export const COPIES_PATH = '/query/v1/copies'

/** Bounds of one request; beyond them a processor answers 413. */
export const MAX_REQUEST_BYTES = 512 * 1024
export const MAX_QUESTIONS = 256
/** With the largest statuses, an answer of 64 MiB. */
export const MAX_IDS_OF_QUESTION = 128
export const MAX_IDS_OF_REQUEST = 2_048
export const MAX_LISTED = 1_000
/** How long a question may wait until the copy reaches its position, ms. */
export const MAX_HOLD_MS = 2_000
/** Bytes of statuses in one answer: beyond, further questions are put off, and a listing ends early. */
export const MAX_ANSWER_BYTES = 16 * 1024 * 1024
/** Longest id in a question; a device id has up to 128 characters. */
const MAX_ID = 512

export interface Question {
  readonly partition: number
  readonly deviceIds: readonly string[]
}

export interface ListQuestion {
  readonly partition: number
  readonly after: string | undefined
  readonly limit: number
}

export interface PastQuestion {
  readonly position: Position
  readonly deviceId: string
  readonly withinMs: number
}

interface WireError {
  readonly code: string
  readonly message: string
  readonly retryAfterSeconds: number
}

/** `lengths`: bytes of each status, -1 for an unknown device. */
type WireOutcome =
  | { readonly freshness: Freshness; readonly lengths: readonly number[] }
  | { readonly error: WireError }

interface WirePast {
  readonly freshness: Freshness
  readonly length: number
  readonly outcome?: Outcome | undefined
}

interface WireListing {
  readonly freshness: Freshness
  readonly ids: readonly string[]
  readonly lengths: readonly number[]
}

/** A malformed question or answer. */
export class WireFormatError extends Error {}

export function encodeQuestions(questions: readonly Question[]): string {
  return JSON.stringify(questions)
}

/** Throws WireFormatError. */
export function decodeQuestions(body: string): Question[] {
  const questions = parse(body)
  if (!Array.isArray(questions) || questions.length > MAX_QUESTIONS) {
    throw new WireFormatError(`up to ${MAX_QUESTIONS} questions are expected`)
  }
  let ids = 0
  for (const question of questions as Partial<Question>[]) {
    const { partition, deviceIds } = question ?? {}
    checkPartition(partition)
    if (!Array.isArray(deviceIds) || deviceIds.length === 0 || deviceIds.length > MAX_IDS_OF_QUESTION) {
      throw new WireFormatError(`1 to ${MAX_IDS_OF_QUESTION} ids of a partition are expected`)
    }
    for (const id of deviceIds) checkId(id)
    ids += deviceIds.length
  }
  if (ids > MAX_IDS_OF_REQUEST) throw new WireFormatError(`up to ${MAX_IDS_OF_REQUEST} ids are expected`)
  return questions as Question[]
}

export function encodeListQuestion(question: ListQuestion): string {
  return JSON.stringify(question)
}

/** Throws WireFormatError. */
export function decodeListQuestion(body: string): ListQuestion {
  const { partition, after, limit } = (parse(body) ?? {}) as Partial<ListQuestion>
  checkPartition(partition)
  if (after !== undefined) checkId(after)
  if (!Number.isInteger(limit) || (limit as number) < 1 || (limit as number) > MAX_LISTED) {
    throw new WireFormatError(`a limit from 1 to ${MAX_LISTED} is expected`)
  }
  return { partition: partition as number, after, limit: limit as number }
}

/** Outcomes in the order of the questions. All answers to one question were read at once, and are equally fresh. */
export function encodeOutcomes(outcomes: readonly (readonly Answer[] | TidemarkError)[]): Buffer[] {
  const statuses: Uint8Array[] = []
  const head: WireOutcome[] = outcomes.map((outcome) => {
    if (outcome instanceof TidemarkError) return { error: wireError(outcome) }
    const lengths = outcome.map(({ status }) => {
      if (status === undefined) return -1
      statuses.push(bufferOf(status))
      return status.end - status.start
    })
    return { freshness: (outcome[0] as Answer).freshness, lengths }
  })
  return withHead(head, statuses)
}

/** Throws WireFormatError when these are not the outcomes of `questions`. */
export function decodeOutcomes(body: Buffer, questions: readonly Question[]): (Answer[] | UnavailableError)[] {
  const { head, statuses } = splitHead(body)
  const outcomes = head as WireOutcome[]
  if (!Array.isArray(outcomes) || outcomes.length !== questions.length) {
    throw new WireFormatError(`${questions.length} outcomes are expected`)
  }
  return outcomes.map((outcome, i) => {
    if ('error' in outcome) return unavailable(outcome.error)
    const { freshness, lengths } = outcome
    if (lengths.length !== questions[i]?.deviceIds.length) throw new WireFormatError('an answer to each id is expected')
    return lengths.map((length) => ({ status: length < 0 ? undefined : statuses.slice(length), freshness }))
  })
}

export function encodeListing({ items, freshness }: Listing): Buffer[] {
  const kept: Uint8Array[] = []
  let bytes = 0
  for (const { status } of items) {
    bytes += status.byteLength
    if (kept.length > 0 && bytes > MAX_ANSWER_BYTES) break
    kept.push(status)
  }
  const ids = items.slice(0, kept.length).map(({ deviceId }) => deviceId)
  const head: WireListing = { freshness, ids, lengths: kept.map(({ byteLength }) => byteLength) }
  return withHead(head, kept)
}

/** Throws WireFormatError. */
export function decodeListing(body: Buffer): Listing {
  const { head, statuses } = splitHead(body)
  const { freshness, ids, lengths } = head as WireListing
  return {
    freshness,
    items: ids.map((deviceId, i) => ({ deviceId, status: statuses.take(lengths[i] as number) })),
  }
}

export function encodePastQuestion(question: PastQuestion): string {
  return JSON.stringify(question)
}

/** Throws WireFormatError. */
export function decodePastQuestion(body: string): PastQuestion {
  const { position, deviceId, withinMs } = (parse(body) ?? {}) as Partial<PastQuestion>
  checkPartition(position?.partition)
  if (!Number.isSafeInteger(position?.offset)) throw new WireFormatError('an offset is expected')
  checkId(deviceId)
  if (!Number.isFinite(withinMs) || (withinMs as number) < 0 || (withinMs as number) > MAX_HOLD_MS) {
    throw new WireFormatError(`a time from 0 to ${MAX_HOLD_MS} ms is expected`)
  }
  return { position: position as Position, deviceId: deviceId as string, withinMs: withinMs as number }
}

export function encodePast({ status, freshness, outcome }: PastAnswer): Buffer[] {
  const bytes = status && bufferOf(status)
  const head: WirePast = { freshness, length: bytes?.length ?? -1, outcome }
  return withHead(head, bytes === undefined ? [] : [bytes])
}

/** Throws WireFormatError. */
export function decodePast(body: Buffer): PastAnswer {
  const { head, statuses } = splitHead(body)
  const { freshness, length, outcome } = head as WirePast
  return { status: length < 0 ? undefined : statuses.slice(length), freshness, outcome }
}

export function encodeCopies(copies: readonly Copy[]): string {
  return JSON.stringify(copies)
}

/** Throws WireFormatError. */
export function decodeCopies(body: Buffer): Copy[] {
  const copies = parse(body.toString())
  if (!Array.isArray(copies)) throw new WireFormatError('a list of copies is expected')
  return copies as Copy[]
}

export function encodeError(error: TidemarkError): string {
  return JSON.stringify(wireError(error))
}

/** Throws WireFormatError. */
export function decodeError(body: Buffer): UnavailableError {
  return unavailable(parse(body.toString()) as WireError)
}

function wireError(error: TidemarkError): WireError {
  const retryAfterSeconds = error instanceof UnavailableError ? error.retryAfterSeconds : 1
  return { code: error.code, message: error.message, retryAfterSeconds }
}

/** Any error of a processor means here that its copy cannot answer. */
function unavailable({ code, message, retryAfterSeconds }: WireError): UnavailableError {
  return new UnavailableError(code as ErrorCode, message, retryAfterSeconds)
}

const LENGTH_BYTES = 4

export function withHead(head: object, statuses: readonly Uint8Array[]): Buffer[] {
  const json = Buffer.from(JSON.stringify(head))
  const length = Buffer.allocUnsafe(LENGTH_BYTES)
  length.writeUInt32BE(json.byteLength)
  return [length, json, ...statuses.map(viewOf)]
}

export function splitHead(body: Buffer): { head: unknown; statuses: Cursor } {
  const bytes = new Cursor(body)
  const head = parse(bytes.take(bytes.take(LENGTH_BYTES).readUInt32BE()).toString())
  return { head, statuses: bytes }
}

export class Cursor {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  take(length: number): Buffer {
    return bufferOf(this.slice(length))
  }

  slice(length: number): Slice {
    const start = this.#at
    this.#at += length
    if (!(length >= 0 && this.#at <= this.#bytes.byteLength)) throw new WireFormatError('the answer is cut short')
    return { buffer: this.#bytes, start, end: this.#at }
  }
}

export function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new WireFormatError(`JSON is expected: ${(error as Error).message}`)
  }
}

export function checkPartition(partition: unknown): void {
  if (!Number.isInteger(partition) || (partition as number) < 0) throw new WireFormatError('a partition is expected')
}

export function checkId(id: unknown): void {
  if (typeof id !== 'string' || id.length > MAX_ID) throw new WireFormatError('a device id is expected')
}
