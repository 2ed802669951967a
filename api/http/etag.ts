import { createHash } from 'node:crypto'
import type { Status } from '../../processor/contract/status.ts'
import { isVersion } from '../../processor/contract/write.ts'

/**
 * The entity tag of a status: its rev, and when the device was first seen, since a device that was deleted and came back
 * counts its revs anew. It is weak (RFC 9110 section 8.8.1): answers of one rev differ in how fresh they are, and in
 * `counters.duplicates`. A write may ask for it by `If-Match`. `text`: the JSON of a status, as `statusText` writes it,
 * without its last `}`; what another program wrote and has none of it is told apart by all that it is.
 */
export function etagOf(text: string): string {
  const rev = text.indexOf(REV) + REV.length
  const version = `${text.slice(rev, text.indexOf(',', rev))}-${firstSeen(text)}`
  return `W/"${isVersion(version) ? version : createHash('sha256').update(text).digest('base64url')}"`
}

function firstSeen(text: string): string | undefined {
  const at = text.indexOf(FIRST_SEEN)
  if (at < 0) return undefined
  const time = at + FIRST_SEEN.length
  if (text.indexOf(FIRST_SEEN, time) < 0) return text.slice(time, time + TIME_LENGTH)
  // What devices report comes before it and what people say after it, and either may look like all that surrounds it.
  try {
    return (JSON.parse(`${text}}`) as Status).firstSeenAt
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

const REV = '","rev":'
/** V8 looks for the first character alone before it compares: one that is rare in statuses makes that several times as fast. */
const FIRST_SEEN = 'firstSeenAt":"'
const TIME_LENGTH = '2026-11-24T10:00:00.000Z'.length

/** RFC 9110 section 8.8.3. */
const ENTITY_TAG = /(?:W\/)?"([\x21\x23-\x7e\x80-\xff]*)"/g

/** Whether `If-None-Match` names the tag, by weak comparison (RFC 9110 section 13.1.2): then 304 is due. */
export function isNoneMatch(header: string, etag: string): boolean {
  if (header === etag || header.trim() === '*') return true
  const opaque = etag.slice(3, -1)
  for (const [, given] of header.matchAll(ENTITY_TAG)) if (given === opaque) return true
  return false
}
