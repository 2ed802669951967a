import { isVersion, MAX_VERSIONS } from '../processor/contract/write.ts'
import { ProblemError } from './problem.ts'

/** What a request asks for beside its body: a condition, and time to wait. */

/** An entity tag at the start of a list, and the comma after it (RFC 9110 section 8.8.3 and 5.6.1). */
const TAG = /^[\t ]*(?:(?:W\/)?"([\x21\x23-\x7e\x80-\xff]*)")?[\t ]*(?:,|$)/

/**
 * The versions that `If-Match` asks for; `any` for `*`; undefined when there is no condition. The tag of a device is its
 * version, weak or strong. One that no device can have is matched by none, so of such tags alone the list is empty.
 */
export function ifMatchOf(header: string | undefined): readonly string[] | 'any' | undefined {
  if (header === undefined) return undefined
  if (header.trim() === '*') return 'any'
  const versions: string[] = []
  let tags = 0
  for (let rest = header; rest !== ''; ) {
    const match = TAG.exec(rest)
    if (match === null) throw ProblemError.invalid([{ field: 'if-match', message: 'must be * or a list of ETags' }])
    const [item, tag] = match
    rest = rest.slice(item.length)
    if (tag === undefined) continue
    tags++
    if (isVersion(tag)) versions.push(tag)
  }
  const message = tags === 0 ? 'names no ETag' : `may name up to ${MAX_VERSIONS} ETags`
  if (tags === 0 || tags > MAX_VERSIONS) throw ProblemError.invalid([{ field: 'if-match', message }])
  return versions
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

/** Longest wait for a write to be applied, s; a longer one that a client prefers is cut to it. */
export const MAX_WAIT_SECONDS = 10
const WAIT = /(?:^|,)[\t ]*wait[\t ]*=[\t ]*"?(\d{1,9})"?[\t ]*(?=[;,]|$)/i

/** Seconds, of the first `wait` in `Prefer` (RFC 7240 section 4.3). A preference that cannot be read is none. */
export function preferredWait(header: string | undefined): number | undefined {
  const seconds = WAIT.exec(header ?? '')?.[1]
  return seconds === undefined ? undefined : Math.min(Number(seconds), MAX_WAIT_SECONDS)
}
