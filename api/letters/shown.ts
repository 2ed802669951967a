import { isUtf8 } from 'node:buffer'
import { viewOf } from '../../processor/contract/own-copy.ts'
import { formatPosition, parsePosition } from '../../processor/contract/position.ts'
import type { LogRecord } from '../../processor/contract/record.ts'
import { isDeviceId } from '../../processor/contract/telemetry.ts'
import { isoTime, MAX_TIME_MS } from '../../processor/contract/time.ts'
import type { FoundLetter } from './lane.ts'

/** Bytes of a payload that are shown. */
export const SHOWN_PAYLOAD_BYTES = 4_096
/** UTF-16 code units of any other text that are shown, and of all further headers, names included. */
export const SHOWN_TEXT_LENGTH = 1_024

/** Of the device that the letter tells; undefined when it tells none. */
export function deviceOf({ key }: LogRecord): string | undefined {
  return key !== null && isDeviceId(key) ? key : undefined
}

/** A letter as it is shown, in memory of its own. */
export function foundLetter(partition: number, record: LogRecord): FoundLetter {
  const at = timeOf(record)
  return { partition, offset: record.offset, at, text: JSON.stringify(shown(partition, record, at)) }
}

/** Another writer may put any 64 bits there. */
function timeOf({ timestamp }: LogRecord): number | undefined {
  const ms = Math.floor(timestamp)
  return ms >= 0 && ms <= MAX_TIME_MS ? ms : undefined
}

function shown(partition: number, record: LogRecord, at: number | undefined): object {
  const { reason, topic, truncated, timestamp, ...others } = record.headers ?? {}
  const { partition: fromPartition, offset: fromOffset, ...further } = others
  const position = parsePosition(`${fromPartition}-${fromOffset}`)
  const shortened: string[] = []
  const short = (name: string, text: string): string => {
    if (text.length <= SHOWN_TEXT_LENGTH) return text
    shortened.push(name)
    return beginningOf(text)
  }
  const told: Record<string, unknown> = {
    partition,
    offset: record.offset,
    at: at === undefined ? null : isoTime(at),
    reason: reason === undefined ? null : short('reason', reason),
    deviceId: deviceOf(record) ?? null,
    key: record.key === null ? null : short('key', record.key),
  }
  if (topic !== undefined) told.topic = short('topic', topic)
  if (position !== undefined) told.position = formatPosition(position)
  if (timestamp !== undefined) told.timestamp = short('timestamp', timestamp)
  if (truncated !== undefined) told.truncated = short('truncated', truncated)
  const left = position === undefined ? others : further
  const headers = fitting(left)
  if (headers.length > 0) told.headers = Object.fromEntries(headers)
  if (headers.length < Object.keys(left).length) shortened.push('headers')
  told.payload = record.value === null ? null : payloadOf(record.value)
  if (shortened.length > 0) told.shortened = shortened
  return told
}

function payloadOf(value: Uint8Array): object {
  const bytes = viewOf(value)
  const whole = bytes.length <= SHOWN_PAYLOAD_BYTES
  const isText = isUtf8(bytes)
  let end = whole ? bytes.length : SHOWN_PAYLOAD_BYTES
  // Not within a character.
  if (isText) while (end < bytes.length && ((bytes[end] as number) & 0xc0) === 0x80) end--
  const content = bytes.toString(isText ? 'utf8' : 'base64', 0, end)
  return { encoding: isText ? 'text' : 'base64', content, bytes: bytes.length, ...(whole ? {} : { shownBytes: end }) }
}

function beginningOf(text: string): string {
  // Not within a pair of surrogates.
  const end = (text.charCodeAt(SHOWN_TEXT_LENGTH - 1) & 0xfc00) === 0xd800 ? SHOWN_TEXT_LENGTH - 1 : SHOWN_TEXT_LENGTH
  return text.slice(0, end)
}

function fitting(headers: Readonly<Record<string, string>>): [string, string][] {
  let length = 0
  return Object.entries(headers).filter(([name, text]) => {
    const fits = length + name.length + text.length <= SHOWN_TEXT_LENGTH
    if (fits) length += name.length + text.length
    return fits
  })
}
