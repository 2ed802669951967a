import type { IncomingHttpHeaders } from 'node:http'
import { Type } from 'typebox'
import { isVersion, MAX_VERSIONS } from '../../processor/contract/write.ts'
import { isNoneMatch } from './etag.ts'
import { blamed, ProblemError } from './problem.ts'

/** What a request asks for beside its body: a condition, and time to wait. */

/** An entity tag at the start of a list, and the comma after it (RFC 9110 section 8.8.3 and 5.6.1). */
const TAG = /^[\t ]*(?:(?:W\/)?"([\x21\x23-\x7e\x80-\xff]*)")?[\t ]*(?:,|$)/

/** What `If-Match` asks for: tags, be they weak or strong; `any` for `*`; undefined when there is no condition. */
export function ifMatchOf(header: string | undefined): readonly string[] | 'any' | undefined {
  if (header === undefined) return undefined
  if (header.trim() === '*') return 'any'
  const tags: string[] = []
  for (let rest = header; rest !== ''; ) {
    const match = TAG.exec(rest)
    if (match === null) throw ProblemError.invalid([{ field: 'if-match', message: 'must be * or a list of ETags' }])
    const [item, tag] = match
    rest = rest.slice(item.length)
    if (tag !== undefined) tags.push(tag)
  }
  const message = tags.length === 0 ? 'names no ETag' : `may name up to ${MAX_VERSIONS} ETags`
  if (tags.length === 0 || tags.length > MAX_VERSIONS) throw ProblemError.invalid([{ field: 'if-match', message }])
  return tags
}

/**
 * Whether a write is to be performed only where there is no device (`If-None-Match: *`). By ETags it could not be told
 * before its turn in the log: such a condition is refused, as it may not be ignored (RFC 9110 section 13.1.2).
 */
export function ifNoneMatchOf(header: string | undefined): boolean {
  if (header === undefined) return false
  if (header.trim() === '*') return true
  const message = 'must be * for a write; If-Match takes ETags'
  throw ProblemError.invalid([{ field: 'if-none-match', message }])
}

/** Headers of a read. */
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
 * Whether the one who reads has what the tag stands for: then 304 is due. Throws ProblemError `precondition-failed` when it is
 * not what `If-Match` asks for (RFC 9110 section 13.2.2).
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

/** Of a device that is at a version, the tag may be its rev alone. */
function isOf(tag: string, etag: string): boolean {
  const opaque = etag.slice('W/"'.length, -1)
  return tag === opaque || (isVersion(opaque) && tag === opaque.split('-', 1)[0])
}

/** Longest wait for a write to be applied, s; a longer one that a client prefers is cut to it. */
export const MAX_WAIT_SECONDS = 10
const WAIT = /(?:^|,)[\t ]*wait[\t ]*=[\t ]*"?(\d{1,9})"?[\t ]*(?=[;,]|$)/i

/** Seconds, of the first `wait` in `Prefer` (RFC 7240 section 4.3). A preference that cannot be read is none. */
export function preferredWait(header: string | undefined): number | undefined {
  const seconds = WAIT.exec(header ?? '')?.[1]
  return seconds === undefined ? undefined : Math.min(Number(seconds), MAX_WAIT_SECONDS)
}
