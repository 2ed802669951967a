import { MAX_ATTRIBUTES_DEPTH } from '../contract/attributes.ts'
import { JsonScanner } from '../contract/json-scanner.ts'
import { STATES } from '../store/index-entries.ts'
import {
  AT,
  DUPLICATES,
  END,
  LATE,
  MESSAGES,
  type PlainStatus,
  recentShapes,
  type Scalar,
  SEQUENCE,
  SEQUENCE_END,
  SESSION,
  type Shape,
  SKEWED,
  TIME_BYTES,
} from './plain-status.ts'

const HEAD = Buffer.from('{"deviceId":"')
const REV = Buffer.from('","rev":')
const CONNECTIVITY = Buffer.from('"}},"connectivity":{"state":"')
const SINCE = Buffer.from('","since":"')
const REASON = Buffer.from('","reason":"')
const CONNECTIVITY_SESSION = Buffer.from('","session":')
const FIRST_SEEN = Buffer.from('},"firstSeenAt":"')
const LAST_SEEN = Buffer.from('","lastSeenAt":"')
const COMMA = Buffer.from(',')
const ATTRIBUTES = Buffer.from(',"attributes":')
const CONSTANTS = [true, false, null].map((value) => ({ value, text: Buffer.from(String(value)) }))

const scanner = new JsonScanner()

/**
 * `plainOf` of the status whose JSON `encodeStatus` gave, without that status in between, which takes three times as
 * long. Undefined when it is not plain, or its metrics are of a kind that no other status had lately; also of what another
 * program wrote and is no status: what is not looked at would be written on for ever.
 */
export function decodePlain(deviceId: string, bytes: Uint8Array): PlainStatus | undefined {
  scanner.begin(bytes)
  if (!scanner.literal(HEAD) || !scanner.text(deviceId) || !scanner.literal(REV)) return undefined
  const rev = scanner.number()
  const metricsAt = scanner.at
  for (const shape of recentShapes()) {
    scanner.at = metricsAt
    const values = readValues(shape)
    if (values !== undefined) return readRest(deviceId, rev, shape, values)
  }
  return undefined
}

/** Undefined when the metrics are others. */
function readValues({ before }: Shape): Scalar[] | undefined {
  const values: Scalar[] = []
  let timeAt = 0
  for (let i = 0; i < before.length; i++) {
    if (!scanner.literal(before[i] as Uint8Array)) return undefined
    const value = readScalar()
    if (value === undefined || !scanner.literal(AT)) return undefined
    if (i === 0) timeAt = scanner.at
    if (!scanner.same(timeAt, TIME_BYTES)) return undefined
    values.push(value)
  }
  return scanner.literal(CONNECTIVITY) ? values : undefined
}

function readScalar(): Scalar | undefined {
  const number = scanner.number()
  if (!Number.isNaN(number)) return number
  return CONSTANTS.find(({ text }) => scanner.literal(text))?.value
}

function readRest(deviceId: string, rev: number, shape: Shape, values: Scalar[]): PlainStatus | undefined {
  const middleAt = scanner.at - CONNECTIVITY.length
  const state = STATES.find((one) => scanner.text(one))
  if (state === undefined || !scanner.literal(SINCE)) return undefined
  scanner.skipPlainText()
  if (!scanner.literal(REASON)) return undefined
  scanner.skipPlainText()
  if (!scanner.literal(CONNECTIVITY_SESSION)) return undefined
  const session = scanner.number()
  if (!scanner.literal(FIRST_SEEN)) return undefined
  const firstSeenAt = scanner.takePlainText(TIME_BYTES)
  if (firstSeenAt === undefined || !scanner.literal(LAST_SEEN)) return undefined
  const middle = scanner.slice(middleAt, scanner.at)
  const lastSeenAt = scanner.takePlainText(TIME_BYTES)
  if (lastSeenAt === undefined || !scanner.literal(MESSAGES)) return undefined
  const messages = scanner.number()
  if (!scanner.literal(LATE)) return undefined
  const late = scanner.number()
  if (!scanner.literal(DUPLICATES)) return undefined
  const duplicates = scanner.number()
  if (!scanner.literal(SKEWED)) return undefined
  const skewed = scanner.number()
  let low = 0
  let high: number | undefined
  let sequenceSession = 0
  let sequenceAt: string | undefined = ''
  if (scanner.literal(SEQUENCE)) {
    low = scanner.number()
    if (!scanner.literal(COMMA)) return undefined
    high = scanner.number()
    if (!scanner.literal(SESSION)) return undefined
    sequenceSession = scanner.number()
    if (!scanner.literal(AT)) return undefined
    sequenceAt = scanner.takePlainText(TIME_BYTES)
    if (sequenceAt === undefined || !scanner.literal(SEQUENCE_END)) return undefined
  } else if (!scanner.literal(END)) {
    return undefined
  }
  if (!(isCount(rev) && isCount(session) && isCount(messages) && isCount(late) && isCount(duplicates))) return undefined
  if (!(isCount(skewed) && isCount(low) && isCount(high ?? 0) && isCount(sequenceSession))) return undefined
  const tail = readTail()
  if (tail === undefined) return undefined
  return {
    shape,
    values,
    at: scanner.slice(middleAt - TIME_BYTES, middleAt),
    rev,
    messages,
    late,
    duplicates,
    skewed,
    firstSeenAt,
    lastSeenAt,
    low,
    high,
    sequenceAt,
    sequenceSession,
    state,
    session,
    head: `{"deviceId":"${deviceId}","rev":`,
    middle,
    tail,
  }
}

function isCount(number: number): boolean {
  return Number.isSafeInteger(number)
}

/** Undefined when it does not end the status. */
function readTail(): string | undefined {
  const start = scanner.at
  if (!scanner.literal(ATTRIBUTES)) return scanner.literal(END) && scanner.ended ? '}' : undefined
  return scanner.object(MAX_ATTRIBUTES_DEPTH) && scanner.literal(END) && scanner.ended ? scanner.rest(start) : undefined
}
