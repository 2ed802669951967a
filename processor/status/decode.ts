import { isUtf8 } from 'node:buffer'
import { type RejectionReason } from '../contract/dead-letter.ts'
import { hasBackslashInName, isObject, type Json, viewOf } from '../contract/json.ts'
import {
  type Connection,
  HEADER_KIND,
  HEADER_METRIC,
  HEADER_WILL,
  type Headers,
  isDeviceId,
  KIND_CONNECTIVITY,
  type LogRecord,
  MAX_PAYLOAD_BYTES,
} from '../contract/record.ts'
import { CONNECTIVITY_REASONS, type ConnectivityReason } from '../contract/status.ts'
import { MAX_TIME_MS } from '../contract/time.ts'
import { decodeWrite, KIND_ATTRIBUTES, KIND_DELETION, type Write, type WriteFault } from '../contract/write.ts'
import { decodeMessages, decodeMetric, type Reading } from './message.ts'

export type Decoded =
  | {
      readonly kind: 'readings'
      readonly receivedAt: number
      readonly will: number | undefined
      readonly readings: readonly Reading[]
    }
  | { readonly kind: 'connection'; readonly receivedAt: number; readonly connection: Connection }
  | { readonly kind: 'write'; readonly write: Write }
  | { readonly kind: 'rejected'; readonly reason: RejectionReason }

/** Pure and total: any bytes become readings, a connection, a write, or a reason to reject them. */
export function decodeRecord(record: LogRecord): Decoded {
  if (record.key === null || !isDeviceId(record.key)) return rejected('bad-device-id')
  // Ingest stamps records; another writer of the topic may put any 64 bits there.
  const receivedAt = Math.floor(record.timestamp)
  if (!(receivedAt >= 0 && receivedAt <= MAX_TIME_MS)) return rejected('bad-timestamp')
  const bytes = record.value
  const headers = record.headers
  const kind = headers?.[HEADER_KIND]
  if (bytes === null) {
    return kind === KIND_DELETION ? writeOf(decodeWrite(headers as Headers, undefined, 0)) : rejected('not-json')
  }
  if (bytes.byteLength > MAX_PAYLOAD_BYTES) return rejected('payload-too-large')
  const json = parse(bytes)
  if (typeof json === 'string') return rejected(json)
  if (kind !== undefined) return decodeKind(kind, headers as Headers, json.value, bytes.byteLength, receivedAt)
  const metric = headers?.[HEADER_METRIC]
  const readings = metric === undefined ? decodeMessages(json.value, receivedAt) : decodeMetric(metric, json.value)
  if (typeof readings === 'string') return rejected(readings)
  const will = headers?.[HEADER_WILL]
  return { kind: 'readings', receivedAt, will: will === undefined ? undefined : Number(will), readings }
}

function decodeKind(kind: string, headers: Headers, json: Json, bytes: number, receivedAt: number): Decoded {
  if (kind === KIND_CONNECTIVITY) return decodeConnection(json, receivedAt)
  if (kind === KIND_ATTRIBUTES || kind === KIND_DELETION) return writeOf(decodeWrite(headers, json, bytes))
  return rejected('bad-kind')
}

function writeOf(write: Write | WriteFault): Decoded {
  return typeof write === 'string' ? rejected(write) : { kind: 'write', write }
}

function rejected(reason: RejectionReason): Decoded {
  return { kind: 'rejected', reason }
}

function parse(bytes: Uint8Array): { value: Json } | RejectionReason {
  // Buffer.toString would quietly turn invalid bytes into U+FFFD.
  if (!isUtf8(bytes)) return 'not-utf8'
  const text = viewOf(bytes).toString()
  if (hasBackslashInName(text)) return 'bad-metric-name'
  try {
    return { value: JSON.parse(text) as Json }
  } catch (error) {
    if (error instanceof SyntaxError) return 'not-json'
    throw error
  }
}

function decodeConnection(json: Json, receivedAt: number): Decoded {
  if (!isObject(json)) return rejected('bad-connectivity')
  const { state, reason, session } = json
  if (state !== 'online' && state !== 'offline' && state !== 'unknown') return rejected('bad-connectivity')
  if (!CONNECTIVITY_REASONS.includes(reason as ConnectivityReason)) return rejected('bad-connectivity')
  if (!Number.isSafeInteger(session) || (session as number) < 0) return rejected('bad-connectivity')
  const connection: Connection = { state, reason: reason as ConnectivityReason, session: session as number }
  return { kind: 'connection', receivedAt, connection }
}
