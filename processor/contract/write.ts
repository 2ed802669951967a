import { type AttributesFault, attributesFault, MAX_ATTRIBUTES_BYTES } from './attributes.ts'
import { isObject, type Json, type JsonObject } from './json.ts'
import { HEADER_KIND, type Headers, type NewRecord } from './record.ts'
import type { Status } from './status.ts'

/**
 * What the API asks of a device, through the telemetry log: the owner decides on it when its turn comes, so that writes
 * and telemetry have one order. With the header `kind: attributes` the value is a JSON object, and the header
 * `operation` says what it does: it becomes the attributes (`replace`), or is merged into them (`merge`, RFC 7396).
 * With `kind: deletion` the value is null. The header `if-match` makes a write conditional: it is applied only while the
 * device is at one of the versions listed, by commas; of an empty list, at none. A version is the rev, alone or with the
 * time at which the device was first seen: `42-2026-11-24T10:00:00.000Z`. One that was deleted and came back counts anew.
 */
export const KIND_ATTRIBUTES = 'attributes'
export const KIND_DELETION = 'deletion'
const HEADER_OPERATION = 'operation'
const HEADER_IF_MATCH = 'if-match'

/** Versions that one condition may name. */
export const MAX_VERSIONS = 16

export type Write =
  | {
      readonly kind: 'attributes'
      readonly operation: 'replace' | 'merge'
      readonly attributes: JsonObject
      readonly ifMatch: readonly string[] | undefined
    }
  | { readonly kind: 'deletion'; readonly ifMatch: readonly string[] | undefined }

export type WriteFault =
  | AttributesFault
  | 'not-an-object'
  | 'attributes-too-large'
  | 'bad-operation'
  | 'bad-condition'
  | 'bad-deletion'

/** `attributes` must be valid and within their bound. `timestamp`: epoch ms. */
export function writeRecord(deviceId: string, write: Write, timestamp: number): NewRecord {
  const condition = write.ifMatch === undefined ? {} : { [HEADER_IF_MATCH]: write.ifMatch.join(',') }
  if (write.kind === 'deletion') {
    return { key: deviceId, value: null, timestamp, headers: { [HEADER_KIND]: KIND_DELETION, ...condition } }
  }
  const headers = { [HEADER_KIND]: KIND_ATTRIBUTES, [HEADER_OPERATION]: write.operation, ...condition }
  return { key: deviceId, value: Buffer.from(JSON.stringify(write.attributes)), timestamp, headers }
}

/** `value` is the parsed value of the record; undefined for null. `bytes` is its length. */
export function decodeWrite(headers: Headers, value: Json | undefined, bytes: number): Write | WriteFault {
  const ifMatch = decodeCondition(headers[HEADER_IF_MATCH])
  if (ifMatch === 'bad-condition') return ifMatch
  if (headers[HEADER_KIND] === KIND_DELETION) {
    return value === undefined ? { kind: 'deletion', ifMatch } : 'bad-deletion'
  }
  const operation = headers[HEADER_OPERATION]
  if (operation !== 'replace' && operation !== 'merge') return 'bad-operation'
  if (!isObject(value)) return 'not-an-object'
  if (bytes > MAX_ATTRIBUTES_BYTES) return 'attributes-too-large'
  return attributesFault(value)?.fault ?? { kind: 'attributes', operation, attributes: value, ifMatch }
}

const VERSION = /^\d{1,15}(?:-[\d:.TZ-]{24})?$/

export function isVersion(text: string): boolean {
  return VERSION.test(text)
}

function decodeCondition(text: string | undefined): readonly string[] | undefined | 'bad-condition' {
  if (text === undefined) return undefined
  const versions = text === '' ? [] : text.split(',', MAX_VERSIONS + 1)
  return versions.length <= MAX_VERSIONS && versions.every(isVersion) ? versions : 'bad-condition'
}

/** Whether a status is at one of `versions`. */
export function isAt({ rev, firstSeenAt }: Pick<Status, 'rev' | 'firstSeenAt'>, versions: readonly string[]): boolean {
  return versions.includes(String(rev)) || versions.includes(`${rev}-${firstSeenAt}`)
}

/**
 * `stale`: the device is at none of the versions that the write names. The caller finds out about `status-too-large`.
 */
export const OUTCOMES = ['applied', 'stale', 'unknown-device', 'attributes-too-large', 'status-too-large'] as const
export type Outcome = (typeof OUTCOMES)[number]
