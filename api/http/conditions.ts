import { createHash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { Type } from 'typebox'
import type { Status } from '../../processor/contract/status.ts'
import { isVersion, MAX_VERSIONS } from '../../processor/contract/write.ts'
import { blamed, ProblemError } from './problem.ts'

/**
 * The entity tag of a status: its rev, and when the device was first seen, since a device that was deleted and came back
 * counts its revs anew. It is weak (RFC 9110 section 8.8.1): answers of one rev differ in how fresh they are, and in
 * `counters.duplicates`. A write may ask for it by `If-Match`. `text`: the JSON of a status, as `HeldStatus.text` writes it,
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
/**
 * V8 searches for the first character before it compares the rest. A character that is rare in statuses makes that
 * several times faster.
 */
const FIRST_SEEN = 'firstSeenAt":"'
const TIME_LENGTH = '2026-11-24T10:00:00.000Z'.length

/** RFC 9110 section 8.8.3. */
const ENTITY_TAG = /(?:W\/)?"([\x21\x23-\x7e\x80-\xff]*)"/g

/** Whether `If-None-Match` names the tag by weak comparison (RFC 9110 section 13.1.2), so that 304 is due. */
function isNoneMatch(header: string, etag: string): boolean {
  if (header === etag || header.trim() === '*') return true
  const opaque = etag.slice(3, -1)
  for (const [, given] of header.matchAll(ENTITY_TAG)) if (given === opaque) return true
  return false
}

/**
 * The next member of a list of entity tags, or an empty one, and the comma after it (RFC 9110 sections 8.8.3 and 5.6.1).
 * Linear: no two runs of white space stand side by side.
 */
const MEMBER = /[\t ]*(?:(?:W\/)?"([\x21\x23-\x7e\x80-\xff]*)"[\t ]*)?(?:,|$)/y

/** Returns the tags that `If-Match` names, weak or strong; `any` for `*`; undefined without a condition. */
export function ifMatchOf(header: string | undefined): readonly string[] | 'any' | undefined {
  if (header === undefined) return undefined
  if (header.trim() === '*') return 'any'
  const tags: string[] = []
  for (MEMBER.lastIndex = 0; MEMBER.lastIndex < header.length; ) {
    const member = MEMBER.exec(header)
    if (member === null) throw ProblemError.invalid([{ field: 'if-match', message: 'must be * or a list of ETags' }])
    if (member[1] !== undefined) tags.push(member[1])
  }
  const message = tags.length === 0 ? 'names no ETag' : `may name up to ${MAX_VERSIONS} ETags`
  if (tags.length === 0 || tags.length > MAX_VERSIONS) throw ProblemError.invalid([{ field: 'if-match', message }])
  return tags
}

/**
 * Whether `If-None-Match: *` asks for a write only where there is no device. Conditions with ETags are refused: they
 * cannot be decided before the write's turn in the log, and must not be ignored (RFC 9110 section 13.1.2).
 */
export function ifNoneMatchOf(header: string | undefined): boolean {
  if (header === undefined) return false
  if (header.trim() === '*') return true
  const message = 'must be * for a write; If-Match takes ETags'
  throw ProblemError.invalid([{ field: 'if-none-match', message }])
}

export const READ_CONDITIONS = Type.Object({
  'If-Match': Type.Optional(
    Type.String({ description: 'ETags of the device, or its `rev` alone: 412 when it is at none of them.' }),
  ),
  'If-None-Match': Type.Optional(
    Type.String({
      description: 'ETags of earlier answers: 304 when the device is at one of them; `*`: at whichever.',
      examples: ['W/"42-2026-11-20T07:00:00.000Z"', '*'],
    }),
  ),
})

/**
 * Whether the client has the current version, so that 304 is due. Throws ProblemError `precondition-failed` when
 * `If-Match` names another one (RFC 9110 section 13.2.2).
 */
export function isKnown(headers: IncomingHttpHeaders, etag: string): boolean {
  const wanted = ifMatchOf(headers['if-match'])
  if (wanted !== undefined && wanted !== 'any' && !wanted.some((tag) => isOf(tag, etag))) {
    const detail = `the device is at ${etag}`
    throw new ProblemError('precondition-failed', detail, blamed('if-match', 'names another version'), { etag })
  }
  const known = headers['if-none-match']
  return known !== undefined && isNoneMatch(known, etag)
}

/** A tag may be the rev alone. */
function isOf(tag: string, etag: string): boolean {
  const opaque = etag.slice('W/"'.length, -1)
  return tag === opaque || (isVersion(opaque) && tag === opaque.split('-', 1)[0])
}

/** Longest wait for a write to be applied, seconds. A longer preference is cut to it. */
export const MAX_WAIT_SECONDS = 10
const WAIT = /(?:^|,)[\t ]*wait[\t ]*=[\t ]*"?(\d{1,9})"?[\t ]*(?=[;,]|$)/i

/** Seconds of the first `wait` in `Prefer` (RFC 7240 section 4.3). An unreadable preference counts as none. */
export function preferredWait(header: string | undefined): number | undefined {
  const seconds = WAIT.exec(header ?? '')?.[1]
  return seconds === undefined ? undefined : Math.min(Number(seconds), MAX_WAIT_SECONDS)
}
