import { STATES } from './index-entries.ts'
import { JsonScanner } from './json-scanner.ts'
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
} from './plain.ts'

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
 * long. Undefined when it is not plain, or its metrics are of a kind that no other status had lately.
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
  scanner.skipToQuote()
  if (!scanner.literal(REASON)) return undefined
  scanner.skipToQuote()
  if (!scanner.literal(CONNECTIVITY_SESSION)) return undefined
  const session = scanner.number()
  if (!scanner.literal(FIRST_SEEN)) return undefined
  const firstSeenAt = scanner.take(TIME_BYTES)
  if (!scanner.literal(LAST_SEEN)) return undefined
  const middle = scanner.slice(middleAt, scanner.at)
  const lastSeenAt = scanner.take(TIME_BYTES)
  if (!scanner.literal(MESSAGES)) return undefined
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
  let sequenceAt = ''
  if (scanner.literal(SEQUENCE)) {
    low = scanner.number()
    if (!scanner.literal(COMMA)) return undefined
    high = scanner.number()
    if (!scanner.literal(SESSION)) return undefined
    sequenceSession = scanner.number()
    if (!scanner.literal(AT)) return undefined
    sequenceAt = scanner.take(TIME_BYTES)
    if (!scanner.literal(SEQUENCE_END)) return undefined
  } else if (!scanner.literal(END)) {
    return undefined
  }
  if (Number.isNaN(rev + session + messages + late + duplicates + skewed + low + (high ?? 0) + sequenceSession)) {
    return undefined
  }
  const tailAt = scanner.at
  if (!scanner.literal(ATTRIBUTES) && !(scanner.literal(END) && scanner.ended)) return undefined
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
    tail: scanner.ended ? '}' : scanner.rest(tailAt),
  }
}
